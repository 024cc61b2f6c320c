//! `staunch drill`: the alerts that would be sent.

use std::io::Write;
use std::sync::Arc;

use serde_json::json;

use super::{ConfigArg, Exit};
use crate::alert::condition::severity_word;
use crate::alert::drill::{self, Play, Scene, Sent};
use crate::alert::http::Client;
use crate::alert::message::{Alert, Occasion};
use crate::alert::{store, words};
use crate::cert::keeper::{self, Wanted};
use crate::cert::load::Roots;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config};

/// Alerts that `--send` sends to one sink, at most.
const SENT: usize = 50;

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("until").required(true)))]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Play until this moment (RFC 3339, or a date)
    #[arg(long, value_name = "RFC3339", group = "until", value_parser = moment)]
    at: Option<Timestamp>,
    /// Play for this long, such as 30d
    #[arg(long = "in", value_name = "DURATION", group = "until", value_parser = span)]
    within: Option<i64>,
    /// Send the alerts through the real sinks, marked as a drill
    #[arg(long)]
    send: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn moment(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or("write 2027-02-01 or 2027-02-01T00:00:00Z")
}

/// Seconds in "30d", "36h", "90m".
fn span(text: &str) -> Result<i64, &'static str> {
    let wrong = "write a whole number and d, h, m or s, such as 30d";
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let unit = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong),
    };
    let number: u32 = number.parse().map_err(|_| wrong)?;
    Ok(i64::from(number) * unit)
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let config = match config::load(&args.config.config) {
        Ok(config) => config,
        Err(faults) => {
            eprint!("{faults}");
            return Exit::Failed;
        }
    };
    let from = Clock::system().now();
    let until = args
        .at
        .unwrap_or_else(|| from.plus(args.within.unwrap_or(0)));
    if until <= from {
        eprintln!("staunch drill: {until} is past: time is only played forward");
        return Exit::Failed;
    }
    let roots = Arc::new(Roots::system());
    let held = keeper::survey(
        Wanted::of(&config),
        &config.state_dir,
        Clock::system(),
        roots,
    );
    let sites: Vec<_> = config
        .sites
        .iter()
        .flat_map(|site| site.names.iter().cloned())
        .collect();
    let scenes = drill::play(&Play {
        config: &config.alerts,
        sites: &sites,
        memory: &store::memory(&config.state_dir),
        inventory: &|at| held.report(at),
        from,
        until,
    });
    let sent = if args.send {
        match send(&config, &scenes, from) {
            Ok(sent) => sent,
            Err(error) => {
                eprintln!("staunch drill: {error}");
                return Exit::Failed;
            }
        }
    } else {
        Vec::new()
    };
    let mut out = std::io::stdout().lock();
    let shown = if args.json {
        show_json(&mut out, from, until, &scenes, &sent)
    } else {
        show(&mut out, from, until, &scenes).and_then(|()| show_sent(&mut out, &sent))
    };
    match shown {
        Err(_) => Exit::Failed,
        Ok(()) if sent.iter().any(|it| it.result.is_err()) => Exit::Bad,
        Ok(()) => Exit::Ok,
    }
}

fn send(config: &Config, scenes: &[Scene], now: Timestamp) -> std::io::Result<Vec<Sent>> {
    let mut alerts: Vec<Alert> = scenes
        .iter()
        .filter(|scene| scene.occasion != Occasion::Resolved)
        .map(|scene| scene.alert.clone())
        .take(SENT)
        .collect();
    if alerts.is_empty() {
        alerts.push(drill::test_alert(now));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(drill::send(&config.alerts, &alerts, &Client::new(), now)))
}

fn show(
    out: &mut impl Write,
    from: Timestamp,
    until: Timestamp,
    scenes: &[Scene],
) -> std::io::Result<()> {
    writeln!(
        out,
        "If nothing is renewed from now until {} ({}):\n",
        words::moment(until),
        words::span(until.since(from))
    )?;
    for scene in scenes {
        let ahead = scene.at.since(from);
        let when = if ahead < 60 {
            "now".to_owned()
        } else {
            format!("in {}", words::span(ahead))
        };
        let severity = match scene.occasion {
            Occasion::Resolved => "resolved",
            _ => severity_word(scene.alert.severity),
        };
        writeln!(
            out,
            "{}  {when:<11}  {severity:<11}  {}: {}",
            words::moment(scene.at),
            scene.alert.condition.title(),
            words::clean(&scene.alert.subject)
        )?;
        writeln!(out, "    {}", scene.alert.summary)?;
        writeln!(out, "    {}", scene.alert.next_step)?;
        let again = match scene.reminders {
            0 => String::new(),
            1 => ", and 1 reminder".to_owned(),
            many => format!(", and {many} reminders"),
        };
        writeln!(out, "    To: {}{again}\n", scene.sinks.join(", "))?;
    }
    if scenes.is_empty() {
        writeln!(out, "No alert would be sent.")?;
    }
    Ok(())
}

fn show_sent(out: &mut impl Write, sent: &[Sent]) -> std::io::Result<()> {
    for it in sent {
        match &it.result {
            Ok(()) => writeln!(out, "sent    {}  {}", it.sink, words::clean(&it.alert))?,
            Err(error) => {
                writeln!(
                    out,
                    "FAILED  {}  {}: {error}",
                    it.sink,
                    words::clean(&it.alert)
                )?;
            }
        }
    }
    Ok(())
}

fn show_json(
    out: &mut impl Write,
    from: Timestamp,
    until: Timestamp,
    scenes: &[Scene],
    sent: &[Sent],
) -> std::io::Result<()> {
    let sent: Vec<_> = sent
        .iter()
        .map(|it| {
            let error = it.result.as_ref().err().map(ToString::to_string);
            json!({ "sink": &*it.sink, "alert": it.alert, "error": error })
        })
        .collect();
    let document = json!({ "from": from, "until": until, "timeline": scenes, "sent": sent });
    writeln!(out, "{document:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_needs_its_unit() {
        assert_eq!(span("30d"), Ok(30 * 86_400));
        assert_eq!(span("90m"), Ok(5_400));
        for wrong in ["", "d", "30", "-1d", "1.5h", "30 d", "3é"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_timeline_says_when_what_and_to_whom() {
        let now = Timestamp::from_unix(1_767_225_600);
        let scene = Scene {
            at: now.plus(5 * 86_400),
            occasion: Occasion::Fired,
            sinks: vec!["log".to_owned(), "pager".to_owned()],
            reminders: 3,
            alert: drill::test_alert(now),
        };
        let mut out = Vec::new();
        show(&mut out, now, now.plus(6 * 86_400), &[scene]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("If nothing is renewed from now until 2026-01-07 00:00 UTC (6 days):")
        );
        assert!(
            text.contains("2026-01-06 00:00 UTC  in 5 days    critical     test alert: staunch\n"),
            "{text}"
        );
        assert!(
            text.contains("    To: log, pager, and 3 reminders\n"),
            "{text}"
        );
    }
}
