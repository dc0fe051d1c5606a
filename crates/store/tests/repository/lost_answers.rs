//! An object store whose answers are lost: it has stored an object, its client asks again, and hears that the object exists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use fabkeep_store::{RemarkKind, Repository, Sources, WriterKey};
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::{Place, summary};

/// Loses the answer to each first put below a prefix.
#[derive(Debug)]
struct Losing {
    inner: Arc<InMemory>,
    below: &'static str,
    lost: AtomicBool,
}

impl std::fmt::Display for Losing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("losing")
    }
}

#[async_trait]
impl ObjectStore for Losing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, opts).await?;
        if location.as_ref().starts_with(self.below) {
            self.lost.store(true, Ordering::SeqCst);
            return Err(Error::AlreadyExists { path: location.to_string(), source: "412".into() });
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".to_owned(), implementer: "losing".to_owned() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[test]
fn what_was_stored_without_an_answer_is_stored() {
    let place = Place::new();
    for below in ["fabkeep.json", "writers/", "place", "objects/", "manifests/", "index/", "points/"] {
        let store = Arc::new(Losing { inner: Arc::new(InMemory::new()), below, lost: AtomicBool::new(false) });
        let folder = place.folder.path().join(below.trim_end_matches('/'));
        let (identity, writer) = (folder.join("identity"), folder.join("writer"));
        let open: Arc<dyn ObjectStore> = store.clone();
        Repository::init_in(Arc::clone(&open), &identity, &writer).unwrap_or_else(|error| panic!("{below}: {error}"));
        let repository = Repository::open_in(open).unwrap();
        let run = repository.writer(WriterKey::read(&writer).unwrap()).unwrap();
        let id = run.put_alone(vec![7; 3 << 20]).unwrap();
        let done = run.commit(&vec![id], summary(), Sources::new());
        let commit = done.unwrap_or_else(|error| panic!("{below}: {error}")).0;
        assert!(store.lost.load(Ordering::SeqCst), "{below}: no answer was lost");
        let history = repository.history().unwrap();
        assert_eq!(history.commits, [commit]);
        assert!(history.remarks.iter().all(|remark| remark.kind != RemarkKind::Damaged), "{:?}", history.remarks);
    }
}
