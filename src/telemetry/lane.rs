//! A lane: bytes from one worker to one writer, neither of which waits for the other.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, TryLockError};

/// Bytes that may wait in each half of a lane: at 40,000 requests a second, those of some 60 ms.
const MOST: usize = 1 << 20;

/// How often both halves are tried. One try is enough unless the worker loses its core between the
/// two halves just while the writer goes from one to the other.
const TRIES: usize = 4;

/// Two buffers, each behind a lock. The writer takes one lock at a time and only to swap the buffer
/// out, so that of the two one is free: the worker tries the first, then the second, and waits for
/// neither. Lines keep their order but for a rare exchange of neighbours.
#[derive(Debug, Default)]
pub(super) struct Lane {
    halves: [Mutex<Vec<u8>>; 2],
    dropped: AtomicU64,
}

impl Lane {
    /// Adds a line, or drops and counts it when there is no room. True when the writer must be
    /// woken, because there was nothing to write before.
    pub(super) fn append(&self, line: &[u8]) -> bool {
        for half in self.halves.iter().cycle().take(2 * TRIES) {
            let mut buffer = match half.try_lock() {
                Ok(buffer) => buffer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            if buffer.len() + line.len() > MOST {
                break;
            }
            let wake = buffer.is_empty();
            buffer.extend_from_slice(line);
            return wake;
        }
        self.dropped.fetch_add(1, Relaxed);
        false
    }

    /// Hands everything that waits to `write`, and keeps the buffers for use again. `spare` is empty
    /// before and after.
    pub(super) fn drain(&self, spare: &mut Vec<u8>, mut write: impl FnMut(&[u8])) {
        for half in &self.halves {
            mem::swap(
                &mut *half.lock().unwrap_or_else(PoisonError::into_inner),
                spare,
            );
            if !spare.is_empty() {
                write(spare);
                spare.clear();
            }
        }
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn every_line_arrives_or_is_counted() {
        const LINES: u32 = 20_000;
        let lane = Lane::default();
        let mut seen = Vec::new();
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                for n in 0..LINES {
                    lane.append(&n.to_le_bytes());
                }
            });
            let mut spare = Vec::new();
            loop {
                let finished = worker.is_finished();
                lane.drain(&mut spare, |bytes| seen.extend_from_slice(bytes));
                if finished {
                    break;
                }
            }
        });
        let (numbers, _) = seen.as_chunks::<4>();
        let mut numbers: Vec<_> = numbers.iter().map(|n| u32::from_le_bytes(*n)).collect();
        assert_eq!(numbers.len() as u64 + lane.dropped(), u64::from(LINES));
        numbers.sort_unstable();
        assert!(numbers.is_sorted_by(|a, b| a < b), "a line came twice");
    }

    #[test]
    fn a_full_lane_drops_and_counts() {
        let lane = Lane::default();
        let line = vec![0; MOST / 2];
        assert!(lane.append(&line));
        assert!(!lane.append(&line));
        assert!(!lane.append(&line));
        assert_eq!(lane.dropped(), 1);
    }
}
