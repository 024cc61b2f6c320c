//! Letting others have their turn, in the middle of much to do.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Has the task polled again once all that is ready has had its turn, new input included. Waking
/// oneself would come first: the runtime looks for input only after dozens of polls.
pub fn rest(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// A rest that lasts although the task is woken for something else.
#[derive(Debug, Default)]
pub struct Rest(Option<Arc<Resting>>);

#[derive(Debug)]
struct Resting {
    over: AtomicBool,
    task: Waker,
}

impl Wake for Resting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.over.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

impl Rest {
    /// Begins one.
    pub fn begin(&mut self, cx: &mut Context<'_>) {
        let resting = Arc::new(Resting {
            over: AtomicBool::new(false),
            task: cx.waker().clone(),
        });
        rest(&mut Context::from_waker(&Waker::from(Arc::clone(&resting))));
        self.0 = Some(resting);
    }

    /// Ready when it is over, or there is none.
    pub fn poll(&mut self) -> Poll<()> {
        match &self.0 {
            Some(resting) if !resting.over.load(Ordering::Relaxed) => Poll::Pending,
            _ => {
                self.0 = None;
                Poll::Ready(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn a_rest_lasts_until_others_had_their_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut pause = Rest::default();
            assert!(pause.poll().is_ready());
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                if polls == 1 {
                    pause.begin(cx);
                    cx.waker().wake_by_ref();
                    assert!(pause.poll().is_pending());
                    return Poll::Pending;
                }
                pause.poll()
            })
            .await;
            assert!(polls >= 2);
        });
    }
}
