// What must hold whatever a client of HTTP/2 sends, and however those who work on its streams go
// about it. Included by the fuzz target and by the test that runs its corpus, so that both ask the
// same.
//
// The input is a script. A client, whose frames may be right or wrong, keeps its own account of what
// was said; servers read and answer its requests in any order. What comes back is read as a strict
// client would read it.

mod http2 {
    use std::collections::{BTreeMap, VecDeque};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use staunch::http::field::Fields;
    use staunch::http::frame::{ErrorCode, HEAD, Head, PREFACE, flag, kind, setting};
    use staunch::http::hpack::Decoder;
    use staunch::http::{Framing, RequestHead, ResponseHead};
    use staunch::proxy::error::Refusal;
    use staunch::serve::h2::connection::Connection;
    use staunch::serve::h2::output::FULL;
    use staunch::serve::h2::request::Bounds;
    use staunch::serve::h2::streams::Slot;

    const MAX_STREAMS: u32 = 12;
    const BOUNDS: Bounds = Bounds { size: 2000, fields: 20 };
    /// What the connection says that it takes.
    const STREAM_WINDOW: i64 = 256 << 10;
    const CONNECTION_WINDOW: i64 = 1 << 20;
    /// Streams that the client has reset, of which there may be more than may be open.
    const MAX_DYING: usize = 33;

    const GET: &[u8] = b"\x82\x87\x84\x41\x06a.test";
    const POST: &[u8] = b"\x83\x87\x84\x41\x06a.test";
    static TEXT: [u8; 40_000] = [b'x'; 40_000];
    const INCREMENTS: [u32; 8] = [0, 1, 5, 100, 65_535, 1 << 20, 0x7fff_ffff, 16_384];
    const VALUES: [u32; 8] = [0, 1, 100, 65_535, 1 << 20, 0x7fff_ffff, 0x8000_0000, 16_384];

    /// Plays a script.
    pub fn connection(script: &[u8]) {
        let mut play = Play::new();
        let mut script = Script(script);
        while let Some(act) = script.next() {
            if !play.act(act, &mut script) {
                break;
            }
        }
        play.end();
    }

    struct Script<'a>(&'a [u8]);

    impl<'a> Script<'a> {
        fn next(&mut self) -> Option<u8> {
            let (&first, rest) = self.0.split_first()?;
            self.0 = rest;
            Some(first)
        }

        fn byte(&mut self) -> u8 {
            self.next().unwrap_or_default()
        }

        fn size(&mut self) -> usize {
            usize::from(self.byte()) << 8 | usize::from(self.byte())
        }

        fn bytes(&mut self, count: usize) -> &'a [u8] {
            let (front, rest) = self.0.split_at(count.min(self.0.len()));
            self.0 = rest;
            front
        }
    }

    /// Whether somebody who waits was told to go on.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Who works on one stream.
    struct Worker {
        slot: Slot,
        id: u32,
        /// What the request says of its body's length.
        length: Option<u64>,
        refused: bool,
        read: Vec<u8>,
        begun: bool,
        /// What of the response's body is still to be sent.
        left: usize,
        finished: bool,
        woken: Arc<Woken>,
        waits: bool,
    }

    /// A stream as the client knows it.
    #[derive(Default)]
    struct Known {
        /// What it may be sent.
        window: i64,
        /// What it may send.
        may_send: i64,
        sent: Vec<u8>,
        ended: bool,
        reset: bool,
        /// The server's side.
        answered: bool,
        over: bool,
        cut: bool,
        received: u64,
    }

    /// Name and value.
    type Field = (Vec<u8>, Vec<u8>);

    struct Play {
        connection: Connection,
        workers: Vec<Worker>,
        over: bool,
        // What the client knows.
        said: Vec<u8>,
        decoder: Decoder,
        block: Option<(u32, bool, Vec<u8>)>,
        streams: BTreeMap<u32, Known>,
        next: u32,
        last: u32,
        initial: i64,
        window: i64,
        may_send: i64,
        /// Heads that were said: stream, whether they end it, fields.
        heads: VecDeque<(u32, bool, Vec<Field>)>,
        goaway: u32,
        /// A block of its own goes on.
        within: Option<u32>,
    }

    fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let head = Head { length: payload.len(), kind, flags, stream };
        [&head.bytes()[..], payload].concat()
    }

    impl Play {
        fn new() -> Self {
            let mut play = Self {
                connection: Connection::new(BOUNDS, MAX_STREAMS),
                workers: Vec::new(),
                over: false,
                said: Vec::new(),
                decoder: Decoder::default(),
                block: None,
                streams: BTreeMap::new(),
                next: 1,
                last: 0,
                initial: 65_535,
                window: 65_535,
                may_send: 65_535,
                heads: VecDeque::new(),
                goaway: u32::MAX,
                within: None,
            };
            assert!(matches!(play.connection.take(PREFACE), Ok(Some((24, None)))));
            play.send(kind::SETTINGS, 0, 0, &[]);
            play
        }

        /// Does one thing; `false` when nothing can follow.
        fn act(&mut self, act: u8, script: &mut Script<'_>) -> bool {
            let whole = flag::END_HEADERS | flag::END_STREAM;
            match act % 20 {
                0 => self.request(whole, GET),
                1 => self.request(flag::END_HEADERS, POST),
                2 => {
                    let length = usize::from(script.byte()) * 100;
                    let digits = length.to_string();
                    let more = [&[0x0f, 0x0d, digits.len() as u8][..], digits.as_bytes()];
                    self.request(flag::END_HEADERS, &[POST, &more.concat()].concat());
                }
                3 => {
                    let (stream, flags) = (self.some(script.byte()), script.byte());
                    let data = &TEXT[..script.size() % 16_385];
                    self.send(kind::DATA, flags & flag::END_STREAM, stream, data);
                }
                4 => {
                    let (kind, flags) = (script.byte(), script.byte());
                    let stream = u32::from(script.byte());
                    let length = script.byte();
                    self.send(kind % 12, flags, stream, script.bytes(length.into()));
                }
                5 => {
                    let more = INCREMENTS[usize::from(script.byte()) % 8];
                    let stream = self.some(script.byte());
                    self.send(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
                }
                6 => {
                    let mut payload = Vec::new();
                    for _ in 0..script.byte() % 4 {
                        payload.extend_from_slice(&[0, script.byte() % 12]);
                        let value = VALUES[usize::from(script.byte()) % 8];
                        payload.extend_from_slice(&value.to_be_bytes());
                    }
                    self.send(kind::SETTINGS, 0, 0, &payload);
                }
                7 => {
                    let stream = self.some(script.byte());
                    self.send(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
                }
                8 => {
                    let stream = self.some(script.byte());
                    self.send(kind::HEADERS, whole, stream, b"\x00\x01t\x01v");
                }
                9 => {
                    // A block as it comes, of a new stream, in pieces.
                    let (length, cut) = (script.byte(), script.byte());
                    let block = script.bytes(length.into());
                    let at = usize::from(cut).min(block.len());
                    let id = self.next;
                    self.next += 2;
                    self.send(kind::HEADERS, cut & flag::END_STREAM, id, &block[..at]);
                    self.send(kind::CONTINUATION, flag::END_HEADERS, id, &block[at..]);
                }
                10 => self.read(script.byte(), script.size()),
                11 => self.respond(script.byte(), script.byte(), script.size()),
                12 => self.go_on(script.byte()),
                13 => self.finish(script.byte(), script.byte()),
                14 => self.leave(script.byte()),
                15 => while self.connection.grant() {},
                16 => self.hear(Some(script.size())),
                17 => {
                    let payload = [*b"farewell", [script.byte(); 8]];
                    let flags = script.byte();
                    self.send(kind::PING, flags & flag::ACK, 0, &payload[usize::from(flags >> 7)]);
                }
                18 if script.byte() == 0 => self.connection.farewell(),
                18 => self.send(kind::GOAWAY, 0, 0, &[0; 8]),
                _ => {
                    // With padding.
                    let (stream, padding) = (self.some(script.byte()), script.byte());
                    let data = [&[padding][..], &TEXT[..script.size() % 300], &[0; 255]].concat();
                    let end = data.len() - 255 + usize::from(padding);
                    let flags = flag::PADDED | script.byte() & flag::END_STREAM;
                    self.send(kind::DATA, flags, stream, &data[..end]);
                }
            }
            !self.over
        }

        /// A stream near to the last: mostly one that is open.
        fn some(&self, byte: u8) -> u32 {
            match byte {
                0xff => 0,
                0xfe => self.next,
                _ => self.next.saturating_sub(2 + 2 * u32::from(byte & 7)),
            }
        }

        fn request(&mut self, flags: u8, block: &[u8]) {
            let id = self.next;
            self.next += 2;
            self.send(kind::HEADERS, flags, id, block);
        }

        /// The client sends a frame.
        fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
            if self.over {
                return;
            }
            self.hear(None); // what was said before was said with what was known before
            let bytes = framed(kind, flags, stream, payload);
            for cut in [0, HEAD - 1, bytes.len() - 1] {
                let part = self.connection.take(&bytes[..cut.min(bytes.len() - 1)]);
                assert!(matches!(part, Ok(None)), "a frame that is not whole");
            }
            match self.connection.take(&bytes) {
                Ok(Some((taken, opened))) => {
                    assert_eq!(taken, bytes.len());
                    self.account(kind, flags, stream, payload);
                    if let Some((slot, head)) = opened {
                        self.opened(slot, head);
                    }
                    self.hear(None);
                }
                Ok(None) => panic!("a whole frame is not taken"),
                Err(fault) => {
                    self.over = true;
                    self.connection.close(fault.code());
                    self.connection.abandon();
                    self.hear(None);
                    assert_ne!(self.goaway, u32::MAX, "the client is not told");
                }
            }
        }

        /// Keeps account of a frame that was taken.
        fn account(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
            let length = payload.len() as i64;
            match kind {
                kind::SETTINGS if flags & flag::ACK == 0 => {
                    for &[a, b, c, d, e, f] in payload.as_chunks::<6>().0 {
                        if u16::from_be_bytes([a, b]) == setting::INITIAL_WINDOW_SIZE {
                            let value = i64::from(u32::from_be_bytes([c, d, e, f]));
                            for known in self.streams.values_mut() {
                                known.window += value - self.initial;
                            }
                            self.initial = value;
                        }
                    }
                }
                kind::WINDOW_UPDATE => {
                    let more = payload.try_into().map_or(0, u32::from_be_bytes) & 0x7fff_ffff;
                    match self.streams.get_mut(&stream) {
                        _ if stream == 0 => self.window += i64::from(more),
                        Some(known) => known.window += i64::from(more),
                        None => {}
                    }
                    assert!(self.window <= 0x7fff_ffff);
                }
                kind::DATA => {
                    self.may_send -= length;
                    assert!(self.may_send >= 0, "more than the connection's window");
                    if let Some(known) = self.streams.get_mut(&stream) {
                        known.may_send -= length;
                        let padded = flags & flag::PADDED != 0;
                        let (from, padding) = match padded {
                            true => (1, usize::from(payload[0])),
                            false => (0, 0),
                        };
                        // What comes behind the end, or too much, has the stream ended at once.
                        known.sent.extend_from_slice(&payload[from..payload.len() - padding]);
                        known.ended |= flags & flag::END_STREAM != 0;
                    }
                }
                kind::HEADERS => {
                    if stream > self.last {
                        assert_eq!(stream % 2, 1);
                        self.last = stream;
                        self.next = self.next.max(stream + 2);
                        let known = Known {
                            window: self.initial,
                            may_send: STREAM_WINDOW,
                            ..Known::default()
                        };
                        self.streams.insert(stream, known);
                    }
                    if let Some(known) = self.streams.get_mut(&stream) {
                        known.ended |= flags & flag::END_STREAM != 0;
                    }
                    self.within = (flags & flag::END_HEADERS == 0).then_some(stream);
                }
                kind::CONTINUATION => {
                    assert_eq!(self.within, Some(stream));
                    self.within = (flags & flag::END_HEADERS == 0).then_some(stream);
                }
                kind::RST_STREAM => {
                    if let Some(known) = self.streams.get_mut(&stream) {
                        known.reset = true;
                    }
                }
                _ => assert_ne!(kind, kind::PUSH_PROMISE),
            }
        }

        fn opened(&mut self, slot: Slot, head: Result<RequestHead, Refusal>) {
            let id = self.connection.stream(slot).id;
            assert_eq!(id, self.last);
            assert!(id <= self.goaway, "a stream behind the last");
            let known = &self.streams[&id];
            assert!(!known.cut, "a stream that was refused");
            let length = match head.as_ref().map(|head| head.framing) {
                Ok(Framing::Length(length)) => Some(length),
                Ok(Framing::None) if head.as_ref().is_ok_and(|head| !head.upgrade) => Some(0),
                _ => None,
            };
            // What the client has reset is worked on still; what we have is not wanted either.
            let count = |is_it: fn(&Known) -> bool| {
                let known = self.workers.iter().map(|worker| &self.streams[&worker.id]);
                known.filter(|known| is_it(known)).count()
            };
            assert!(count(|known| known.reset && !known.cut) <= MAX_DYING);
            assert!(count(|known| !known.reset && !known.cut) < MAX_STREAMS as usize);
            self.workers.push(Worker {
                slot,
                id,
                length,
                refused: head.is_err(),
                read: Vec::new(),
                begun: false,
                left: 0,
                finished: false,
                woken: Arc::default(),
                waits: false,
            });
        }

        /// What is said is read, or some of it is only written.
        fn hear(&mut self, most: Option<usize>) {
            struct Some_<'a>(&'a mut Vec<u8>, usize);
            impl tokio::io::AsyncWrite for Some_<'_> {
                fn poll_write(
                    mut self: std::pin::Pin<&mut Self>,
                    _: &mut Context<'_>,
                    bytes: &[u8],
                ) -> Poll<std::io::Result<usize>> {
                    let count = bytes.len().min(self.1);
                    if count == 0 {
                        return Poll::Pending;
                    }
                    self.1 -= count;
                    self.0.extend_from_slice(&bytes[..count]);
                    Poll::Ready(Ok(count))
                }
                fn poll_flush(
                    self: std::pin::Pin<&mut Self>,
                    _: &mut Context<'_>,
                ) -> Poll<std::io::Result<()>> {
                    Poll::Ready(Ok(()))
                }
                fn poll_shutdown(
                    self: std::pin::Pin<&mut Self>,
                    _: &mut Context<'_>,
                ) -> Poll<std::io::Result<()>> {
                    Poll::Ready(Ok(()))
                }
            }
            let mut cx = Context::from_waker(Waker::noop());
            let mut sink = Some_(&mut self.said, most.unwrap_or(usize::MAX));
            let output = &mut self.connection.output;
            while matches!(output.poll_write(&mut cx, &mut sink), Poll::Ready(Ok(1..))) {}
            if most.is_none() {
                assert_eq!(output.len(), 0);
                let said = std::mem::take(&mut self.said);
                let mut rest = &said[..];
                while let Some(head) = Head::read(rest) {
                    let payload = &rest[HEAD..HEAD + head.length];
                    rest = &rest[HEAD + head.length..];
                    self.heard(head, payload);
                }
                assert!(rest.is_empty(), "a frame that is not whole was said");
                assert!(self.block.is_none() && self.heads.is_empty());
            }
        }

        /// The client reads a frame.
        fn heard(&mut self, head: Head, payload: &[u8]) {
            let id = head.stream;
            let length = head.length as i64;
            assert!(length <= 16_384);
            assert!(self.block.is_none() || head.kind == kind::CONTINUATION);
            if head.kind != kind::RST_STREAM
                && let Some(known) = self.streams.get(&id)
            {
                assert!(!known.cut && !known.reset, "a frame of a stream that is closed: {head:?}");
                assert!(!known.over || head.kind == kind::WINDOW_UPDATE, "behind the end: {head:?}");
            }
            match head.kind {
                kind::DATA => {
                    let known = self.streams.get_mut(&id).expect("DATA of no stream");
                    assert!(known.answered);
                    known.received += length as u64;
                    known.over = head.has(flag::END_STREAM);
                    known.window -= length;
                    self.window -= length;
                    assert!(length == 0 || known.window >= 0, "more than the stream's window");
                    assert!(length == 0 || self.window >= 0, "more than the connection's window");
                }
                kind::HEADERS => {
                    let ends = head.has(flag::END_STREAM);
                    self.block = Some((id, ends, payload.to_vec()));
                    self.fields(head);
                }
                kind::CONTINUATION => {
                    let (stream, _, block) = self.block.as_mut().expect("CONTINUATION of nothing");
                    assert_eq!(*stream, id);
                    block.extend_from_slice(payload);
                    self.fields(head);
                }
                kind::RST_STREAM => {
                    assert_eq!(length, 4);
                    let known = self.streams.get_mut(&id).expect("RST_STREAM of no stream");
                    assert!(!known.cut && !known.reset, "a stream is closed twice");
                    known.cut = true;
                }
                kind::SETTINGS | kind::PING => assert_eq!(id, 0),
                kind::GOAWAY => {
                    assert_eq!(id, 0);
                    let last = u32::from_be_bytes(payload[..4].try_into().unwrap());
                    assert!(last <= self.goaway, "the last stream grows");
                    let begun = self.streams.values().filter(|known| known.answered).count();
                    assert!(begun == 0 || last > 0);
                    self.goaway = last;
                }
                kind::WINDOW_UPDATE => {
                    let more = i64::from(u32::from_be_bytes(payload.try_into().unwrap()));
                    assert!(more > 0);
                    match id {
                        0 => self.may_send += more,
                        _ => self.streams.get_mut(&id).expect("a window of no stream").may_send += more,
                    }
                    let own = self.streams.get(&id).map_or(0, |known| known.may_send);
                    let more = own > STREAM_WINDOW || self.may_send > CONNECTION_WINDOW;
                    assert!(self.over || !more, "a window larger than it was");
                }
                other => panic!("a frame of kind {other}"),
            }
        }

        fn fields(&mut self, head: Head) {
            if !head.has(flag::END_HEADERS) {
                return;
            }
            let (id, ends, block) = self.block.take().unwrap();
            let mut fields = Vec::new();
            self.decoder
                .read(&block, |field| fields.push((field.name.to_vec(), field.value.to_vec())))
                .expect("a block that is malformed");
            let (stream, last, said) = self.heads.pop_front().expect("a head that nobody said");
            assert_eq!((id, ends, &fields), (stream, last, &said));
            let known = self.streams.get_mut(&id).expect("a head of no stream");
            known.answered = true;
            known.over = ends;
        }

        fn pick(&self, byte: u8) -> Option<usize> {
            let count = self.workers.len();
            (count > 0).then(|| usize::from(byte) % count)
        }

        /// A worker takes what has come of a body, or a part of it.
        fn read(&mut self, which: u8, most: usize) {
            let Some(at) = self.pick(which) else { return };
            let worker = &mut self.workers[at];
            let stream = self.connection.stream(worker.slot);
            let count = stream.body.len().min(most);
            worker.read.extend_from_slice(&stream.body.data()[..count]);
            stream.body.consume(count);
            let known = &self.streams[&worker.id];
            assert!(known.sent.starts_with(&worker.read), "another body than was sent");
            if stream.body.is_empty() && stream.remote_ended && stream.reset.is_none() {
                assert!(known.ended);
                assert_eq!(known.sent.len(), worker.read.len());
                let read = worker.read.len() as u64;
                assert!(worker.length.is_none_or(|length| length == read));
            }
            if count > 0 {
                self.connection.release(worker.slot, count as u32);
            }
        }

        fn respond(&mut self, which: u8, how: u8, size: usize) {
            let Some(at) = self.pick(which) else { return };
            let worker = &mut self.workers[at];
            if worker.begun || self.connection.stream(worker.slot).reset.is_some() {
                return;
            }
            let mut fields = Fields::default();
            let value = &TEXT[..if how & 0x80 == 0 { size % 50 } else { size % 40_000 }];
            let names = [&b"X-A"[..], b"content-type", b"set-cookie", b"b"];
            let names = &names[..usize::from(how >> 1 & 3)];
            for name in names {
                fields.push(name, value);
            }
            let mut said: Vec<_> = (names.iter())
                .map(|name| (name.to_ascii_lowercase(), value.to_vec()))
                .collect();
            let (status, ends) = match how >> 3 & 3 {
                0 => (103, false),
                1 => (204, true),
                _ => (200, false),
            };
            said.insert(0, (b":status".to_vec(), status.to_string().into_bytes()));
            let head = ResponseHead::own(status, "", Framing::Chunked, fields);
            self.connection.respond(worker.slot, &head, ends);
            self.heads.push_back((worker.id, ends, said));
            worker.begun = status != 103;
            worker.left = if ends || !worker.begun { 0 } else { size * 4 };
        }

        /// A worker sends what it can of its response.
        fn go_on(&mut self, which: u8) {
            let Some(at) = self.pick(which) else { return };
            self.push(at);
        }

        fn push(&mut self, at: usize) {
            let worker = &mut self.workers[at];
            let waker = Waker::from(Arc::clone(&worker.woken));
            worker.woken.0.store(false, Ordering::Relaxed);
            worker.waits = false;
            while worker.begun && !worker.finished && worker.left > 0 {
                let stream = self.connection.stream(worker.slot);
                if stream.reset.is_some() || stream.local_ended {
                    worker.left = 0;
                    return;
                }
                let data = &TEXT[..worker.left.min(TEXT.len())];
                let cx = Context::from_waker(&waker);
                match self.connection.poll_send(&cx, worker.slot, data) {
                    Poll::Ready(count) => {
                        assert!((1..=data.len()).contains(&count));
                        assert!(self.connection.output.len() <= FULL);
                        worker.left -= count;
                    }
                    Poll::Pending => {
                        worker.waits = true;
                        return;
                    }
                }
            }
        }

        fn finish(&mut self, which: u8, how: u8) {
            let Some(at) = self.pick(which) else { return };
            let worker = &mut self.workers[at];
            if !worker.begun || worker.finished || worker.left > 0 {
                return;
            }
            worker.finished = true;
            let stream = self.connection.stream(worker.slot);
            let open = !stream.local_ended && stream.reset.is_none();
            let mut trailers = Fields::default();
            trailers.push(b"X-Sum", b"7");
            let trailers = (how & 1 == 1).then_some(&trailers);
            self.connection.finish(worker.slot, trailers);
            if open && trailers.is_some() {
                let said = (b"x-sum".to_vec(), b"7".to_vec());
                self.heads.push_back((worker.id, true, vec![said]));
            }
        }

        fn leave(&mut self, which: u8) {
            let Some(at) = self.pick(which) else { return };
            self.hear(None);
            let worker = self.workers.swap_remove(at);
            if worker.refused {
                self.connection.reject(worker.slot);
            }
            self.connection.leave(worker.slot);
            self.hear(None);
            let known = &self.streams[&worker.id];
            // Where all of a body has come that was announced, its end may follow.
            let ended = known.ended || worker.length == Some(known.sent.len() as u64);
            assert!(
                known.over && ended || known.cut || known.reset || self.over,
                "a stream that nobody works on is not closed"
            );
            assert!(!worker.finished || known.over || known.cut || known.reset || self.over);
        }

        /// Everybody who has something to say can say it, once the client lets them.
        fn end(&mut self) {
            while let Some(stream) = self.within {
                self.send(kind::CONTINUATION, flag::END_HEADERS, stream, &[]);
                if self.over {
                    break;
                }
            }
            while !self.over {
                let mut more = false;
                self.hear(None);
                // One that waits is woken, or can do nothing.
                for at in 0..self.workers.len() {
                    let worker = &self.workers[at];
                    if worker.left > 0
                        && (!worker.waits || worker.woken.0.load(Ordering::Relaxed))
                    {
                        let before = worker.left;
                        self.push(at);
                        more |= self.workers[at].left != before;
                    }
                }
                more |= self.connection.grant();
                self.hear(None);
                if self.window < 1 << 20 {
                    self.send(kind::WINDOW_UPDATE, 0, 0, &(1u32 << 24).to_be_bytes());
                    more = true;
                }
                for at in 0..self.workers.len() {
                    let id = self.workers[at].id;
                    if self.workers[at].left > 0 && self.streams[&id].window < 1 << 20 {
                        self.send(kind::WINDOW_UPDATE, 0, id, &(1u32 << 24).to_be_bytes());
                        more = true;
                    }
                }
                if !more {
                    break;
                }
            }
            if !self.over {
                for worker in &self.workers {
                    assert_eq!(worker.left, 0, "stream {} waits for ever", worker.id);
                }
            }
            while !self.workers.is_empty() {
                self.read(0, usize::MAX);
                self.finish(0, 0);
                self.leave(0);
            }
            assert!(self.connection.is_idle());
            let unreleased = i64::from(self.connection.unreleased());
            assert!(unreleased < CONNECTION_WINDOW / 2);
            assert!(
                self.over || self.may_send + unreleased == CONNECTION_WINDOW,
                "some of the window is lost"
            );
            if !self.over {
                self.connection.close(ErrorCode::NO_ERROR);
                self.hear(None);
            }
            assert!(self.connection.is_over());
        }
    }
}
