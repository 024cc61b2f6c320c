//! Fetches OCSP staples (RFC 6960, RFC 5019): asks the responders that certificates name, believes
//! what can be verified, keeps it in the state directory, and asks again when half of its life is
//! over. No handshake waits for any of it, and none fails for want of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use tokio::task::{self, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, error, info, warn};

use super::Server;
use crate::alert::http::{Client, HttpError};
use crate::cert::inventory::Inventory;
use crate::cert::ocsp::{Answer, Question, State};
use crate::cert::{Fingerprint, Verified};
use crate::clock::Timestamp;
use crate::config::OcspFetch;
use crate::metrics::{OcspOutcome, OcspRequests, Registry, names as metric};
use crate::state::StateDir;
use crate::upstream::check::jitter;

/// How often it is looked whether there is something to ask.
const LOOK: Duration = Duration::from_secs(1);

/// Seconds after which all certificates are looked at even if none was changed.
const AFRESH: i64 = 60;

/// Questions under way at once.
const AT_ONCE: usize = 8;

/// For a whole question.
const DEADLINE: Duration = Duration::from_secs(10);

/// Seconds between two attempts, at least and at most; they double as they fail.
const PAUSE: (i64, i64) = (60, 3600);

/// Seconds between two answers, at least.
const SOONEST: i64 = 10;

/// Bytes of a kept answer at most.
const LONGEST: u64 = 64 * 1024;

/// Bytes of a URL with which a question is asked by GET (RFC 5019, section 5).
const GET: usize = 255;

const FOLDER: &str = "ocsp";
const EXTENSION: &str = ".der";

/// Certificates whose responders are asked.
pub(super) struct Stapling {
    tended: HashMap<Fingerprint, Tended>,
    /// Responders that did not answer, and until when they are left alone.
    silent: HashMap<String, Timestamp>,
    seen: Option<Seen>,
    state: Option<StateDir>,
    store: Option<StateDir>,
    requests: OcspRequests,
    client: Client,
    /// Whom the questions under way are about.
    under_way: HashMap<task::Id, Fingerprint>,
}

/// What the last look at all certificates was about.
#[derive(Clone, Copy)]
struct Seen {
    generation: u64,
    fetch: OcspFetch,
    at: Timestamp,
}

/// One of them.
struct Tended {
    /// The same certificate may be held from several sources.
    held: Vec<Arc<Verified>>,
    responder: String,
    answer: Option<Answer>,
    due: Timestamp,
    failures: u32,
}

struct Failure {
    why: String,
    /// The responder itself was not there.
    silent: bool,
}

impl Stapling {
    /// Uses what was kept. Blocks.
    pub(super) fn prepare(server: &Server) -> Self {
        let mut stapling = Self {
            tended: HashMap::new(),
            silent: HashMap::new(),
            seen: None,
            state: server.state.clone(),
            store: None,
            requests: OcspRequests::new(&server.registry),
            client: Client::new(),
            under_way: HashMap::new(),
        };
        stapling.look(server);
        describe(&server.registry, server);
        stapling
    }

    /// Goes on for as long as the runtime lives.
    pub(super) async fn run(mut self, server: Arc<Server>) {
        let mut asked = JoinSet::new();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if self.is_behind(&server) {
                        let server = Arc::clone(&server);
                        let looked = spawn_blocking(move || {
                            self.look(&server);
                            self
                        });
                        let Ok(looked) = looked.await else {
                            error!("staples are no longer fetched; please report this");
                            return;
                        };
                        self = looked;
                    }
                    self.ask_some(&server, &mut asked);
                }
                Some(done) = asked.join_next_with_id() => {
                    let (id, result) = done.unwrap_or_else(|panic| {
                        let why = "asking failed in a way that was not foreseen".to_owned();
                        (panic.id(), Err(Failure { why, silent: false }))
                    });
                    if let Some(about) = self.under_way.remove(&id) {
                        self.conclude(about, result, server.shared.clock.now()).await;
                    }
                }
            }
        }
    }

    fn is_behind(&self, server: &Server) -> bool {
        let now = server.shared.clock.now();
        let generation = server.keeper.inventory().load().generation();
        let fetch = server.config().tls.ocsp;
        self.seen.is_none_or(|seen| {
            let age = now.since(seen.at);
            (seen.generation, seen.fetch) != (generation, fetch) || !(0..AFRESH).contains(&age)
        })
    }

    /// Looks at all certificates: whose responder is to be asked, and what was heard from it before.
    fn look(&mut self, server: &Server) {
        let (now, fetch) = (server.shared.clock.now(), server.config().tls.ocsp);
        let inventory = server.keeper.inventory().load_full();
        let mut before = std::mem::take(&mut self.tended);
        for certificate in all(&inventory) {
            if certificate.status().is_provided(now) {
                certificate.status().set_fault(None);
                continue;
            }
            let responder = match responder(certificate, fetch, now) {
                Ok(responder) => responder.to_owned(),
                Err(why) => {
                    let missed = certificate.facts().must_staple;
                    certificate
                        .status()
                        .set_fault(missed.then(|| why.to_owned()));
                    continue;
                }
            };
            let fingerprint = certificate.facts().fingerprint;
            if let Some(tended) = self.tended.get_mut(&fingerprint) {
                tended.hold(certificate, now);
                continue;
            }
            let mut tended = before.remove(&fingerprint).map_or_else(
                || Tended {
                    held: Vec::new(),
                    answer: self.recall(server, certificate, now),
                    responder,
                    due: now,
                    failures: 0,
                },
                |tended| Tended {
                    held: Vec::new(),
                    ..tended
                },
            );
            tended.settle(now);
            tended.hold(certificate, now);
            self.tended.insert(fingerprint, tended);
        }
        self.forget(before.keys());
        if self.seen.is_none() {
            self.sweep();
        }
        // From a time that was taken back, it would be for as long as the clock was ahead.
        self.silent
            .retain(|_, until| *until > now && *until <= now.plus(PAUSE.0));
        self.seen = Some(Seen {
            generation: inventory.generation(),
            fetch,
            at: now,
        });
    }

    /// What was kept of the last answer, if that is still one to go by.
    fn recall(
        &mut self,
        server: &Server,
        certificate: &Verified,
        now: Timestamp,
    ) -> Option<Answer> {
        let store = self.store()?;
        let name = file(certificate.facts().fingerprint);
        let der = store.read(&name, LONGEST).ok()?;
        let question = Question::about(certificate, server.roots.load().anchors());
        let answer = question.answer(&der, now);
        let ignored = |why: &String| debug!(file = name, why, "a kept staple is not used");
        answer.inspect_err(ignored).ok()
    }

    /// The folder, made when there is something to keep.
    fn store(&mut self) -> Option<&StateDir> {
        if self.store.is_none() {
            let made = self.state.as_ref()?.folder(FOLDER);
            let made = made.inspect_err(|error| warn!(%error, "staples cannot be kept"));
            self.store = made.ok();
        }
        self.store.as_ref()
    }

    fn forget<'a>(&self, gone: impl Iterator<Item = &'a Fingerprint>) {
        let Some(store) = &self.store else { return };
        for fingerprint in gone {
            // It is small, and found again by the next sweep.
            let _ = store.remove(&file(*fingerprint));
        }
    }

    /// Removes what nobody asks for any more.
    fn sweep(&self) {
        let Some(store) = &self.store else { return };
        let wanted: Vec<_> = self.tended.keys().map(|it| file(*it)).collect();
        let surplus = store.names().unwrap_or_default().into_iter();
        for name in surplus.filter(|name| !wanted.contains(name)) {
            let _ = store.remove(&name);
        }
    }

    /// Asks for those that are due.
    fn ask_some(&mut self, server: &Server, asked: &mut JoinSet<Result<Answer, Failure>>) {
        let now = server.shared.clock.now();
        let silent = &self.silent;
        let asked_already: Vec<_> = self.under_way.values().copied().collect();
        let mut due = (self.tended.iter())
            .filter(|(about, it)| it.due <= now && !asked_already.contains(about))
            .filter(|(_, it)| {
                silent
                    .get(host(&it.responder))
                    .is_none_or(|until| *until <= now)
            });
        while asked.len() < AT_ONCE {
            let Some((fingerprint, tended)) = due.next() else {
                return;
            };
            let Some(certificate) = tended.held.first() else {
                continue;
            };
            let question = Question::about(certificate, server.roots.load().anchors());
            let client = self.client.clone();
            let (responder, clock) = (tended.responder.clone(), server.shared.clock.clone());
            let task = asked
                .spawn(async move { ask(&client, &responder, &question, || clock.now()).await });
            self.under_way.insert(task.id(), *fingerprint);
        }
    }

    async fn conclude(
        &mut self,
        about: Fingerprint,
        result: Result<Answer, Failure>,
        now: Timestamp,
    ) {
        let Some(tended) = self.tended.get_mut(&about) else {
            return;
        };
        let newer = result.and_then(|answer| match &tended.answer {
            Some(known) if answer.is_older_than(known) => Err(Failure {
                why: "its answer is older than the last one".to_owned(),
                silent: false,
            }),
            _ => Ok(answer),
        });
        match newer {
            Ok(answer) => {
                self.requests.record(OcspOutcome::Answered);
                tended.take(answer.clone(), now);
                if let Some(store) = self.store().cloned() {
                    let kept = spawn_blocking(move || store.write(&file(about), &[answer.der()]));
                    if let Ok(Err(error)) = kept.await {
                        warn!(%error, "a staple cannot be kept");
                    }
                }
            }
            Err(Failure { why, silent }) => {
                self.requests.record(OcspOutcome::Failed);
                tended.fail(why, now);
                if silent {
                    let until = now.plus(PAUSE.0);
                    self.silent
                        .insert(host(&tended.responder).to_owned(), until);
                }
            }
        }
    }
}

impl Tended {
    /// When to ask, as it looks now: the clock may have been set since that was decided.
    fn settle(&mut self, now: Timestamp) {
        self.due = match &self.answer {
            Some(answer) if self.failures == 0 => again(answer, now),
            _ => self.due.min(now.plus(PAUSE.1)),
        };
    }

    /// Another source has it too; or the same one, anew.
    fn hold(&mut self, certificate: &Arc<Verified>, now: Timestamp) {
        if let Some(answer) = self
            .answer
            .as_ref()
            .filter(|_| certificate.status().is_empty())
        {
            answer.clone().attach(certificate, now);
        }
        self.held.push(Arc::clone(certificate));
    }

    fn source(&self) -> String {
        let first = self.held.first();
        first.map_or_else(String::new, |it| it.facts().path.display().to_string())
    }

    fn take(&mut self, answer: Answer, now: Timestamp) {
        for certificate in &self.held {
            answer.clone().attach(certificate, now);
        }
        let (source, responder) = (self.source(), &self.responder);
        match answer.revoked() {
            Some(at) => error!(source, responder, revoked = %at, "the certificate is revoked"),
            None if self.answer.is_none() || self.failures > 0 => {
                info!(source, responder, "a staple was fetched");
            }
            None => debug!(source, responder, "a newer staple was fetched"),
        }
        self.due = again(&answer, now);
        self.answer = Some(answer);
        self.failures = 0;
    }

    fn fail(&mut self, why: String, now: Timestamp) {
        let (source, responder) = (self.source(), &self.responder);
        match self.failures {
            0 => warn!(
                source,
                responder, why, "no staple was fetched; what there is is used on"
            ),
            _ => debug!(source, responder, why, "again no staple was fetched"),
        }
        let (shortest, longest) = PAUSE;
        let pause = shortest
            .saturating_mul(1 << self.failures.min(8))
            .min(longest);
        self.failures = self.failures.saturating_add(1);
        self.due = now.plus(jittered(pause));
        let why = format!("{responder} gave none to go by: {why}");
        for certificate in &self.held {
            certificate.status().set_fault(Some(why.clone()));
        }
    }
}

/// When to ask again: when half of its life is over; where that has passed, and the responder has
/// nothing newer yet, soon.
fn again(answer: &Answer, now: Timestamp) -> Timestamp {
    let rest = answer.half_life().since(now);
    let pause = match rest {
        1.. => rest.max(SOONEST),
        _ => (answer.left(now) / 4).clamp(SOONEST, PAUSE.1),
    };
    now.plus(jittered(pause))
}

/// A tenth more or less, so that not all ask at once.
fn jittered(seconds: i64) -> i64 {
    let about = jitter(Duration::from_secs(seconds.unsigned_abs()));
    i64::try_from(about.as_secs()).unwrap_or(seconds)
}

/// Everything that is held.
fn all(inventory: &Inventory) -> impl Iterator<Item = &Arc<Verified>> {
    let candidates = inventory.all().flat_map(|held| &held.candidates);
    candidates.map(|candidate| &candidate.certificate)
}

/// Who is to be asked about a certificate, or why nobody is.
fn responder(
    certificate: &Verified,
    fetch: OcspFetch,
    now: Timestamp,
) -> Result<&str, &'static str> {
    let facts = certificate.facts();
    let named = facts.ocsp_responder.as_deref();
    let responder = named.ok_or("it names no responder, and no file holds a staple")?;
    if facts.validity.not_after < now {
        return Err("it has expired");
    }
    match fetch {
        OcspFetch::All => Ok(responder),
        OcspFetch::Trusted if facts.trusted => Ok(responder),
        OcspFetch::Trusted => Err("this system does not trust it, and tls.ocsp is not \"all\""),
        OcspFetch::Off => Err("no file holds one, and tls.ocsp is \"off\""),
    }
}

/// Scheme, host and port of a URL.
fn host(url: &str) -> &str {
    let path = url.match_indices('/').nth(2).map(|(at, _)| at);
    &url[..path.unwrap_or(url.len())]
}

fn file(fingerprint: Fingerprint) -> String {
    format!("{fingerprint}{EXTENSION}")
}

/// Asks, by GET where the question is small, as caches in between want it; and where that gives
/// nothing to go by, by POST, which is all that some responders know.
async fn ask(
    client: &Client,
    responder: &str,
    question: &Question,
    now: impl Fn() -> Timestamp,
) -> Result<Answer, Failure> {
    let failed = |why: &str| Failure {
        why: why.to_owned(),
        silent: false,
    };
    let der = (question.request()).ok_or_else(|| {
        failed(
            "its issuer is neither in its chain nor among this system's roots, and has to be named",
        )
    })?;
    let mut last = failed("it could not be asked");
    for request in requests(responder, &der) {
        let request = request.map_err(|error| failed(&error.to_string()))?;
        let answer = match timeout(DEADLINE, client.send(request)).await {
            Ok(Ok(answer)) => question.answer(&answer, now()).map_err(|why| failed(&why)),
            Ok(Err(error)) => Err(Failure {
                silent: matches!(error, HttpError::Connect { .. }),
                why: error.to_string(),
            }),
            Err(_) => Err(Failure {
                silent: true,
                why: format!("no answer within {DEADLINE:?}"),
            }),
        };
        match answer {
            Ok(answer) => return Ok(answer),
            Err(failure) => last = failure,
        }
        if last.silent {
            break;
        }
    }
    Err(last)
}

/// The ways of asking, in the order to try them.
fn requests(responder: &str, der: &[u8]) -> Vec<Result<Request<Bytes>, http::Error>> {
    const QUESTION: &str = "application/ocsp-request";
    const ANSWER: &str = "application/ocsp-response";
    let accepting = || Request::builder().header(ACCEPT, ANSWER);
    // Those three of base64 stand for something else in a URL (RFC 6960, appendix A.1).
    let text = BASE64.encode(der);
    let text = text
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let url = format!("{}/{text}", responder.trim_end_matches('/'));
    let get = (url.len() <= GET && !responder.contains('?')).then(|| {
        let request = accepting().uri(url);
        request.body(Bytes::new())
    });
    let post = accepting().method("POST").uri(responder);
    let post = post.header(CONTENT_TYPE, QUESTION);
    let post = post.body(Bytes::copy_from_slice(der));
    get.into_iter().chain([post]).collect()
}

/// Adds to every scrape how many staples there are.
fn describe(registry: &Registry, server: &Server) {
    let (inventory, clock) = (server.keeper.inventory(), server.shared.clock.clone());
    registry.collector(move |scrape| {
        let now = clock.now();
        let inventory = inventory.load();
        let mut counts = [(State::Good, 0_u32), (State::Revoked, 0), (State::None, 0)];
        for report in all(&inventory).filter_map(|it| it.status().report(now)) {
            for (state, count) in &mut counts {
                *count += u32::from(*state == report.status);
            }
        }
        for (state, count) in counts {
            let labels = [("status", state.word())];
            scrape.gauge(metric::OCSP_STAPLES, &labels, f64::from(count));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_question_is_asked_by_get_first() {
        let ways = |responder: &str, length| {
            let requests = requests(responder, &vec![0xff; length]);
            let shown = requests.into_iter().map(|request| {
                let request = request.unwrap();
                format!("{} {}", request.method(), request.uri())
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(
            ways("http://a.test/", 2),
            [
                "GET http://a.test//%2F%2F8%3D".replace("//%2F", "/%2F"),
                "POST http://a.test/".into()
            ]
        );
        assert_eq!(ways("http://a.test", 300), ["POST http://a.test/"]);
        assert_eq!(ways("http://a.test/?q", 2), ["POST http://a.test/?q"]);
    }

    #[test]
    fn a_failure_while_the_clock_was_ahead_puts_nothing_off_once_it_is_back() {
        let now = Timestamp::from_unix(1_800_000_000);
        let mut tended = Tended {
            held: Vec::new(),
            responder: "http://a.test".to_owned(),
            answer: None,
            due: now,
            failures: 0,
        };
        tended.fail("no answer".to_owned(), now.plus(365 * 86_400));
        tended.settle(now);
        assert!(tended.due <= now.plus(PAUSE.1));
        let soon = now.plus(5);
        tended.due = soon;
        tended.settle(now);
        assert_eq!(tended.due, soon);
    }

    #[test]
    fn a_host_is_what_is_before_the_path() {
        assert_eq!(host("http://a.test:80/x/y"), "http://a.test:80");
        assert_eq!(host("http://a.test"), "http://a.test");
        assert_eq!(host("nonsense"), "nonsense");
    }
}
