//! Whether the clock keeps pace with one that nobody sets.

use std::time::{Duration, Instant};

use crate::clock::Timestamp;

/// Seconds that are no leap: the clock is read in whole ones, and not at the very same moment.
const SLACK: i64 = 10;

/// Both clocks at the last look.
#[derive(Debug)]
pub(super) struct Pace {
    at: Instant,
    time: Timestamp,
    /// When it last leapt ahead.
    leapt: Option<Instant>,
}

/// What the clock did since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It went on, and has done so for as long as was asked.
    Steady,
    /// It leapt ahead, not long ago.
    Doubtful,
    /// It was set back.
    Back,
}

impl Pace {
    pub(super) const fn new(at: Instant, time: Timestamp) -> Self {
        Self {
            at,
            time,
            leapt: None,
        }
    }

    /// Looks at the clocks; `steady` is how long a leap ahead is doubted.
    pub(super) fn look(&mut self, at: Instant, time: Timestamp, steady: Duration) -> Step {
        let passed = at.saturating_duration_since(self.at).as_secs();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let ahead = time.since(self.time).saturating_sub(passed);
        (self.at, self.time) = (at, time);
        if ahead > SLACK {
            self.leapt = Some(at);
        }
        let is_doubtful = |leapt: &Instant| at.saturating_duration_since(*leapt) < steady;
        self.leapt = self.leapt.filter(is_doubtful);
        match self.leapt {
            _ if ahead < -SLACK => Step::Back,
            Some(_) => Step::Doubtful,
            None => Step::Steady,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_ahead_is_doubted_for_a_while_and_one_back_is_seen() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin, Timestamp::from_unix(0));
        let mut look = |after: u64, time: i64| {
            let at = begin + Duration::from_secs(after);
            pace.look(at, Timestamp::from_unix(time), Duration::from_secs(60))
        };
        assert_eq!(look(1, 1), Step::Steady);
        assert_eq!(look(100, 103), Step::Steady);
        assert_eq!(look(101, 5000), Step::Doubtful);
        assert_eq!(look(102, 5001), Step::Doubtful);
        assert_eq!(look(103, 106), Step::Back);
        assert_eq!(look(104, 107), Step::Doubtful);
        assert_eq!(look(161, 164), Step::Steady);
        assert_eq!(look(170, 9000), Step::Doubtful);
        assert_eq!(look(230, 9060), Step::Steady);
    }
}
