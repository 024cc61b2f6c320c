//! What a newcomer sees first.

use crate::support::{Staunch, eventually, run};

#[test]
fn the_curl_line_that_the_demo_prints_works_when_pasted() {
    let builder = Staunch::build();
    let mut command = builder.command();
    command.arg("demo");
    let folder = builder.path("");
    let demo = builder.spawn(command);
    let line = eventually("the demo prints a curl line", || {
        assert!(demo.is_running());
        let printed = demo.stdout();
        let line = printed
            .lines()
            .find(|line| line.contains("curl ") && line.contains("--cacert"));
        let begin = line?.find("curl ")?;
        Some(line?[begin..].to_owned())
    });
    let mut shell = std::process::Command::new("sh");
    shell
        .args([
            "-c",
            &format!("{line} --silent --show-error --fail --max-time 30"),
        ])
        .current_dir(&folder);
    let pasted = run(&mut shell);
    assert!(pasted.status.success(), "{line}: {pasted:#?}");
    assert!(!pasted.stdout.is_empty());
    assert!(folder.join("certs").is_dir());
    demo.term();
    assert_eq!(demo.wait_exit().code(), Some(0));
}
