//! Searched folders that cannot be searched.

use super::{SETTLES, World, sentence, settles, source_of};
use crate::alert::condition::{Code, Condition};
use crate::alert::words;
use crate::cert::{Reason, Report};
use crate::config::Severity;

/// A condition for each of them. What was found in it before is held, and served.
pub(super) fn lost(world: &World<'_>, found: &mut Vec<Condition>) {
    let lost = world.reports.iter().filter(|report| report.is_folder);
    let mut lost = lost.peekable();
    if lost.peek().is_none() {
        return;
    }
    let held = world.reports.iter();
    let held = held.filter(|report| report.certificate.is_some());
    let mut held: Vec<_> = held.map(source_of).collect();
    held.sort_unstable();
    // What is served and what was kept are two entries of one source.
    held.dedup();
    found.extend(lost.filter_map(|folder| condition(world, folder, &held)));
}

fn condition(world: &World<'_>, report: &Report, held: &[&str]) -> Option<Condition> {
    let (disk, folder) = (&report.disk, source_of(report));
    if settles(world, disk, SETTLES) {
        return None;
    }
    let below = format!("{}/", folder.trim_end_matches('/'));
    let held = &held[held.partition_point(|source| **source < *below)..];
    let held = held.partition_point(|source| source.starts_with(&below));
    let code = match disk.reason {
        Some(Reason::Missing) => Code::CertificateMissing,
        _ => Code::RenewalRejected,
    };
    let what = match code {
        Code::CertificateMissing => "is not there",
        _ => "cannot be searched",
    };
    let goes_on = match held {
        0 => "no certificate is held from it".to_owned(),
        1 => "the certificate that was found in it is still held".to_owned(),
        more => format!("the {more} certificates that were found in it are still held"),
    };
    let detail = disk
        .detail
        .as_deref()
        .map_or_else(String::new, words::clean);
    let summary = format!(
        "The folder {} {what}; {goes_on}. New ones in it are not noticed. {}",
        words::clean(folder),
        sentence(&detail)
    );
    let step = format!(
        "Mend it, or take it out of the configuration: `namei -l {}`. staunch searches it again by \
         itself.",
        words::shell(folder)
    );
    let severity = match held {
        0 => Severity::Critical,
        _ => Severity::Warning,
    };
    let condition = Condition::new(code, words::clean(folder), severity, summary.trim(), step);
    let condition = condition.since(disk.since);
    Some(match disk.reason {
        Some(reason) => condition.label("reason", reason.code()),
        None => condition,
    })
}
