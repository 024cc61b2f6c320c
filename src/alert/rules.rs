//! The shipped Prometheus rules, checked and tried by Prometheus' own tool.

use std::path::Path;
use std::process::Command;

/// A certificate of 90 days, read every minute on its day 80 and on its last.
const TEST: &str = r#"
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'staunch_certificate_not_before_timestamp_seconds{source="a.pem", name="a.example"}'
        values: '-7771200x60'
      - series: 'staunch_certificate_not_after_timestamp_seconds{source="a.pem", name="a.example"}'
        values: '1800x60'
      - series: 'staunch_certificate_serving{source="a.pem", name="a.example"}'
        values: '1x60'
      - series: 'staunch_build_info{version="0"}'
        values: '1x60'
    alert_rule_test:
      - alertname: StaunchCertificateExpired
        eval_time: 29m
        exp_alerts: []
      - alertname: StaunchCertificateExpired
        eval_time: 31m
        exp_alerts:
          - exp_labels: {severity: critical, source: a.pem, name: a.example}
            exp_annotations:
              summary: a.example is answered with a certificate that expired on 1970-01-01 00:30:00 +0000 UTC.
              description: 'Renew a.pem now: clients see a warning, or refuse.'
              runbook_url: docs/runbook.md#expired
      - alertname: StaunchAbsent
        eval_time: 50m
        exp_alerts: []
  - interval: 1m
    input_series:
      - series: 'staunch_certificate_not_before_timestamp_seconds{source="a.pem", name="a.example"}'
        values: '-7776000x60'
      - series: 'staunch_certificate_not_after_timestamp_seconds{source="a.pem", name="a.example"}'
        values: '432000x60'
      - series: 'staunch_certificate_serving{source="a.pem", name="a.example"}'
        values: '1x60'
      - series: 'staunch_certificate_stale{source="a.pem", name="a.example"}'
        values: '1x60'
      - series: 'staunch_upstream_up{upstream="api", server="http://a"}'
        values: '0x60'
      - series: 'staunch_upstream_up{upstream="api", server="http://b"}'
        values: '1x60'
    alert_rule_test:
      - alertname: StaunchAbsent
        eval_time: 10m
        exp_alerts:
          - exp_labels: {severity: critical}
            exp_annotations:
              summary: No staunch has been scraped for five minutes.
              description: Nothing tells of certificates now. See `systemctl status staunch`, and whether Prometheus reaches the admin address (listen.admin).
              runbook_url: docs/runbook.md#if-staunch-does-not-answer
      - alertname: StaunchCertificateExpiring
        eval_time: 10m
        exp_alerts:
          - exp_labels: {severity: critical, source: a.pem, name: a.example}
            exp_annotations:
              summary: "a.example: 5.256% of the certificate's lifetime is left."
              description: Renew a.pem now.
              runbook_url: docs/runbook.md#expiring
      - alertname: StaunchCertificateStale
        eval_time: 10m
        exp_alerts: []
      - alertname: StaunchUpstreamGone
        eval_time: 10m
        exp_alerts: []
      - alertname: StaunchUpstreamDown
        eval_time: 10m
        exp_alerts:
          - exp_labels: {severity: warning, upstream: api, server: "http://a"}
            exp_annotations:
              summary: http://a of the upstream api is down.
              runbook_url: docs/runbook.md#upstream_down
"#;

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).output();
    let output = output.expect("promtool is there: scripts/install-test-tools says how");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_shipped_rules_are_sound_and_fire_when_they_should() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/alerts.rules.yml");
    let rules = rules.to_str().unwrap();
    promtool(&["check", "rules", rules]);
    let folder = tempfile::tempdir().unwrap();
    let test = folder.path().join("test.yml");
    std::fs::write(&test, TEST.replace("RULES", rules)).unwrap();
    promtool(&["test", "rules", test.to_str().unwrap()]);
}
