//! What looked lost and was not: a folder that is made anew, a state directory that can be written
//! again.

use std::fs;

use super::{Bench, NOW, Running, print, until};
use crate::cert::DiskState;

impl Bench {
    /// Waits for longer than what is gone by now is kept: until something that went later is let go.
    pub(super) fn outlast(&self, running: &Running, folder: &str) {
        let witness = self.issue(&["witness.test"], -30, 60);
        self.write(&format!("{folder}/witness/tls"), &witness);
        // A folder that is left without any is not believed.
        let other = self.issue(&["other.test"], -30, 60);
        self.write(&format!("{folder}/other/tls"), &other);
        running.expect_served("other.test", &other);
        running.expect_served("witness.test", &witness);
        fs::remove_dir_all(self.path(&format!("{folder}/witness"))).unwrap();
        until("the witness is let go", || {
            running.served("witness.test", NOW).is_none()
        });
    }
}

#[test]
fn a_folder_that_is_made_anew_is_not_let_go() {
    let bench = Bench::new();
    let [old, other, new] = [-30, -30, -1].map(|from| bench.issue(&["a.test"], from, 60));
    bench.write("live/a/tls", &old);
    bench.write("live/b/tls", &bench.issue(&["b.test"], -30, 60));
    let running = bench.start(vec![bench.folder("live")]);
    running.expect_served("a.test", &old);
    for issued in [&other, &new] {
        fs::remove_dir_all(bench.path("live/a")).unwrap();
        until("it is seen to be gone", || {
            let report = running.report(NOW);
            report.iter().any(|it| it.disk.state == DiskState::Missing)
        });
        bench.write("live/a/tls", issued);
        running.expect_served("a.test", issued);
        // For longer than something that is gone is kept.
        bench.outlast(&running, "live");
        assert_eq!(running.served("a.test", NOW), Some(print(issued)));
    }
}

#[test]
fn what_could_not_be_written_is_written_when_it_can_be() {
    let bench = Bench::new();
    let sources = ["a", "b", "c"].map(|name| {
        bench.write(name, &bench.issue(&[&format!("{name}.test")], -30, 60));
        bench.pair(name)
    });
    let running = bench.start(sources.to_vec());
    let (copies, aside) = (bench.path("state/last-good"), bench.path("aside"));
    until("all are copied", || {
        fs::read_dir(&copies).unwrap().count() == 3
    });
    // A file in its place: whoever runs this, nothing can be made in it.
    fs::rename(&copies, &aside).unwrap();
    fs::write(&copies, "").unwrap();
    let renewed = ["a", "b", "c"].map(|name| {
        let issued = bench.issue(&[&format!("{name}.test")], -1, 90);
        bench.write(name, &issued);
        running.expect_served(&format!("{name}.test"), &issued);
        issued
    });
    let state = bench.path("state").display().to_string();
    until("it is told", || {
        let degraded = running.keeper.degraded();
        degraded.iter().any(|it| format!("{it:?}").contains(&state))
    });
    fs::remove_file(&copies).unwrap();
    fs::rename(&aside, &copies).unwrap();
    for issued in &renewed {
        bench.wait_for_copy(print(issued));
    }
    until("it is over", || running.keeper.degraded().is_empty());
}
