//! An object store in memory that several actors share: its times are those of a clock that is set, and an actor can be stopped at any write
//! or held at any request while another one goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fabkeep_store::Clock;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// One place.
#[derive(Debug)]
pub struct Place {
    inner: InMemory,
    clock: Clock,
    written: Mutex<HashMap<Path, jiff::Timestamp>>,
}

impl Place {
    pub fn new(clock: &Clock) -> Arc<Place> {
        Arc::new(Place { inner: InMemory::new(), clock: clock.clone(), written: Mutex::default() })
    }

    /// All names, and when they were written.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.written.lock().unwrap().keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    pub fn remove(&self, name: &str) {
        let path = Path::from(name);
        Self::block_on(self.inner.delete(&path)).unwrap();
        self.written.lock().unwrap().remove(&path);
    }

    pub fn flip(&self, name: &str) {
        let path = Path::from(name);
        let mut bytes: Vec<u8> =
            Self::block_on(async { self.inner.get(&path).await.unwrap().bytes().await.unwrap() }).into();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        Self::block_on(self.inner.put(&path, PutPayload::from(bytes))).unwrap();
    }

    fn stat(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let real =
            jiff::Timestamp::new(meta.last_modified.timestamp(), meta.last_modified.timestamp_subsec_nanos() as i32);
        let wanted = self.written.lock().unwrap().get(&meta.location).copied().unwrap_or_default();
        let by = wanted.duration_since(real.unwrap());
        let amount = Duration::try_from(by.abs()).unwrap();
        meta.last_modified = if by.is_negative() { meta.last_modified - amount } else { meta.last_modified + amount };
        meta
    }
}

/// An actor's way to a place.
#[derive(Debug)]
pub struct Way {
    place: Arc<Place>,
    /// Writes until it is stopped; negative: never.
    writes: AtomicI64,
    /// The last write is done, and its answer is lost.
    answer_lost: AtomicI64,
    /// Requests until it is held.
    held_at: AtomicI64,
    /// It is held at its first deletion.
    held_at_delete: AtomicBool,
    /// While it is held there, nothing else of it is deleted.
    deleting: Mutex<()>,
    gate: Mutex<Option<(SyncSender<()>, Receiver<()>)>>,
    /// Milliseconds by which the clocks go on just before a commit record is written.
    pub pause: AtomicU64,
    clocks: Vec<Clock>,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("model")
    }
}

fn stopped() -> Error {
    Error::Generic { store: "model", source: "stopped".into() }
}

impl Way {
    pub fn to(place: &Arc<Place>, clocks: Vec<Clock>) -> Arc<Way> {
        Arc::new(Way {
            place: Arc::clone(place),
            writes: AtomicI64::new(-1),
            answer_lost: AtomicI64::new(0),
            held_at: AtomicI64::new(-1),
            held_at_delete: AtomicBool::new(false),
            deleting: Mutex::default(),
            gate: Mutex::default(),
            pause: AtomicU64::new(0),
            clocks,
        })
    }

    /// Stops the actor after this many writes.
    pub fn stop_after(&self, writes: i64, answer_lost: bool) {
        self.writes.store(writes, Ordering::SeqCst);
        self.answer_lost.store(i64::from(answer_lost), Ordering::SeqCst);
    }

    pub fn run_on(&self) {
        self.writes.store(-1, Ordering::SeqCst);
        self.held_at.store(-1, Ordering::SeqCst);
        self.held_at_delete.store(false, Ordering::SeqCst);
        *self.gate.lock().unwrap() = None;
    }

    /// Holds the actor at a request, or at its first deletion: it says so, and goes on when it is told to.
    pub fn hold_at(&self, request: Option<i64>) -> (Receiver<()>, SyncSender<()>) {
        let (reached, is_reached) = sync_channel(1);
        let (go_on, may_go_on) = sync_channel(1);
        *self.gate.lock().unwrap() = Some((reached, may_go_on));
        match request {
            Some(request) => self.held_at.store(request, Ordering::SeqCst),
            None => self.held_at_delete.store(true, Ordering::SeqCst),
        }
        (is_reached, go_on)
    }

    fn request(&self) {
        if self.held_at.load(Ordering::SeqCst) >= 0 && self.held_at.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.wait();
        }
    }

    fn wait(&self) {
        let gate = self.gate.lock().unwrap().take();
        if let Some((reached, may_go_on)) = gate {
            let _ = reached.send(());
            let _ = may_go_on.recv();
        }
    }

    /// Whether a write is done, and whether its answer arrives.
    fn write(&self) -> (bool, bool) {
        let left = self.writes.load(Ordering::SeqCst);
        if left < 0 {
            return (true, true);
        }
        if left == 0 {
            return (self.answer_lost.swap(0, Ordering::SeqCst) == 1, false);
        }
        self.writes.fetch_sub(1, Ordering::SeqCst);
        (true, true)
    }
}

#[async_trait]
impl ObjectStore for Way {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.request();
        if location.as_ref().starts_with("points/") {
            let pause = self.pause.swap(0, Ordering::SeqCst);
            for clock in &self.clocks {
                clock.set(clock.now() + jiff::SignedDuration::from_millis(pause as i64));
            }
        }
        let (done, answered) = self.write();
        if !done {
            return Err(stopped());
        }
        let put = self.place.inner.put_opts(location, payload, opts).await?;
        self.place.written.lock().unwrap().insert(location.clone(), self.place.clock.now());
        if answered { Ok(put) } else { Err(stopped()) }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(stopped())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request();
        self.place.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let _one = self.deleting.lock().unwrap();
        if self.held_at_delete.swap(false, Ordering::SeqCst) {
            self.wait();
        }
        self.request();
        let (done, answered) = self.write();
        if !done {
            return futures_util::stream::once(async { Err(stopped()) }).boxed();
        }
        let place = Arc::clone(&self.place);
        locations
            .then(move |location| {
                let place = Arc::clone(&place);
                async move {
                    let location = location?;
                    place.inner.delete(&location).await?;
                    place.written.lock().unwrap().remove(&location);
                    if answered { Ok(location) } else { Err(stopped()) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.request();
        let place = Arc::clone(&self.place);
        self.place.inner.list(prefix).map(move |meta| meta.map(|meta| place.stat(meta))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.place.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(stopped())
    }
}
