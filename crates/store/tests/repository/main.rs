//! The repository from outside: what was put is read, damage is found, strangers are refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chain;
mod copying;
mod damage;
mod drills;
mod healing;
mod index;
mod lost_answers;
mod marks;
mod pruning;
mod reading;
mod repacking;
mod retention;
mod revoking;
mod scale;
mod statements;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use fabkeep_store::{
    Commit, IdentityFile, ObjectsChecked, PointSummary, Repository, Sources, StoreError, WriterKey, check_objects,
};
use tempfile::TempDir;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        Repository::init(&place.location(), Some(&place.identity()), Some(&place.writer()), &[]).unwrap();
        place
    }
    fn location(&self) -> String {
        self.folder.path().join("repo").display().to_string()
    }
    fn identity(&self) -> PathBuf {
        self.folder.path().join("identity")
    }
    fn writer(&self) -> PathBuf {
        self.folder.path().join("writer")
    }
    fn open(&self) -> Repository {
        Repository::open(&self.location()).unwrap()
    }
    fn put(&self, blobs: &[Vec<u8>]) -> Commit {
        self.try_put(blobs).unwrap()
    }
    fn try_put(&self, blobs: &[Vec<u8>]) -> Result<Commit, StoreError> {
        let repository = Repository::open(&self.location())?;
        let writer = repository.writer(WriterKey::read(&self.writer())?)?;
        let ids = blobs.iter().map(|blob| writer.put_alone(blob.clone())).collect::<Result<Vec<_>, _>>()?;
        Ok(writer.commit(&ids, summary(), Sources::new())?.0)
    }
    fn key(&self) -> IdentityFile {
        IdentityFile::read(&self.identity()).unwrap()
    }
    /// Whether a point's content is read as it was put.
    fn restores(&self, commit: &Commit, blobs: &[Vec<u8>]) -> Result<(), StoreError> {
        let (repository, identity) = (Repository::open(&self.location())?, self.key());
        let (ids, reader) = repository.read_point::<Vec<fabkeep_store::BlobId>>(commit, &identity)?;
        for (id, blob) in ids.iter().zip(blobs) {
            assert_eq!(&*reader.blob(id)?, blob.as_slice());
        }
        Ok(())
    }
    fn check(&self, commit: &Commit, identity: bool) -> ObjectsChecked {
        let (repository, key) = (self.open(), self.key());
        check_objects(&repository, commit, identity.then_some(&key), true, 2, &AtomicU64::new(0)).unwrap()
    }
    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.location()).join(name)
    }
    fn names(&self, below: &str) -> Vec<String> {
        let location = self.location();
        let name = |path: &PathBuf| path.strip_prefix(&location).unwrap().display().to_string();
        self.objects().iter().map(name).filter(|name| name.starts_with(below)).collect()
    }
    fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(Path::new(&self.location()), &mut found);
        found.sort();
        found
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

fn summary() -> PointSummary {
    PointSummary { network: "n".into(), verdict: "complete".into(), nodes: 1, channels: vec![], source_bytes: 1 }
}

fn blobs() -> Vec<Vec<u8>> {
    (0..24u32).map(|i| (0..1 + i * 70_000).map(|j| (j.wrapping_mul(i + 7) >> 5) as u8).collect()).collect()
}

#[test]
fn what_was_put_is_read_and_a_second_time_costs_nothing() {
    let place = Place::new();
    let blobs = blobs();
    let first = place.put(&blobs);
    let second = place.put(&blobs);
    assert!(first.new_bytes > 1000);
    assert!(second.new_objects <= 3, "manifest, index and commit only: {}", second.new_objects);
    let repository = place.open();
    let identity = IdentityFile::read(&place.identity()).unwrap();
    for commit in [first, second] {
        let (ids, reader) = repository.read_point::<Vec<fabkeep_store::BlobId>>(&commit, &identity).unwrap();
        for (id, blob) in ids.iter().zip(&blobs) {
            assert_eq!(&*reader.blob(id).unwrap(), blob.as_slice());
        }
        assert_eq!(place.check(&commit, false).faults, vec![]);
        assert_eq!(place.check(&commit, true).faults, vec![]);
    }
}

#[test]
fn strangers_are_refused() {
    let place = Place::new();
    let commit = place.put(&blobs());
    let stranger = Place::new();
    let repository = place.open();
    let identity = IdentityFile::read(&stranger.identity()).unwrap();
    let error = repository.read_point::<serde_json::Value>(&commit, &identity).err().unwrap();
    assert!(matches!(error, StoreError::WrongIdentity), "{error}");
    let writer = WriterKey::read(&stranger.writer()).unwrap();
    assert!(matches!(repository.writer(writer).err().unwrap(), StoreError::KeyFile { .. }));
    // A recipient that somebody added to the settings must not be written to.
    let config = Path::new(&place.location()).join("fabkeep.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let own = repository.config().recipients[0].clone();
    let other = stranger.open().config().recipients[0].clone();
    std::fs::write(&config, text.replace(&own, &other)).unwrap();
    assert!(matches!(Repository::open(&place.location()).err().unwrap(), StoreError::Damaged { .. }));
}

#[test]
fn an_object_that_no_index_knows_is_never_taken_for_ours() {
    let place = Place::new();
    let blob = vec![vec![5u8; 3 << 20]];
    place.put(&blob);
    let object = place.objects().into_iter().find(|path| path.display().to_string().contains("/objects/")).unwrap();
    // As after a crash: the object is there, nothing speaks of it; and its bytes are rubbish.
    for folder in ["index", "points", "manifests"] {
        std::fs::remove_dir_all(Path::new(&place.location()).join(folder)).unwrap();
    }
    std::fs::write(&object, b"rubbish").unwrap();
    let commit = place.put(&blob);
    let repository = place.open();
    let identity = IdentityFile::read(&place.identity()).unwrap();
    let (ids, reader) = repository.read_point::<Vec<fabkeep_store::BlobId>>(&commit, &identity).unwrap();
    assert_eq!(&*reader.blob(&ids[0]).unwrap(), blob[0].as_slice());
}

#[test]
fn an_identitys_holder_can_make_another_writer() {
    let place = Place::new();
    let identity = IdentityFile::read(&place.identity()).unwrap();
    let second = place.folder.path().join("second");
    place.open().add_writer(&identity, &second).unwrap();
    let repository = place.open();
    let writer = repository.writer(WriterKey::read(&second).unwrap()).unwrap();
    writer.commit(&(), summary(), Sources::new()).unwrap();
    assert_eq!(repository.history().unwrap().commits.len(), 1);
}

#[test]
fn init_changes_nothing_that_exists() {
    let place = Place::new();
    let again = Repository::init(&place.location(), None, None, &[]);
    assert!(matches!(again.err().unwrap(), StoreError::AlreadyARepository(_)));
    let taken = place.folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("file"), "x").unwrap();
    let error = Repository::init(&taken.display().to_string(), None, None, &[]).err().unwrap();
    assert!(matches!(error, StoreError::FolderNotEmpty(_)));
}

/// What `init` has left behind when it was killed: everything that it had written by then.
#[test]
fn init_goes_on_where_it_was_killed() {
    let place = Place { folder: tempfile::tempdir().unwrap() };
    let (location, unfinished) = (place.location(), place.folder.path().join("writer.unfinished"));
    let init = || Repository::init(&location, Some(&place.identity()), Some(&place.writer()), &[]);
    let made = init().unwrap();
    assert!(!unfinished.exists());
    let whole: Vec<PathBuf> = place.objects();
    let certificate = place.names("writers/").remove(0);
    // The settings are there, and the key has not its name yet.
    std::fs::rename(place.writer(), &unfinished).unwrap();
    let again = init().unwrap();
    assert_eq!((again.id, again.root, again.identity_is_new), (made.id.clone(), made.root.clone(), false));
    assert!(matches!(init(), Err(StoreError::KeyFile { .. })));
    // The settings are on their way.
    std::fs::rename(place.writer(), &unfinished).unwrap();
    std::fs::rename(place.path("fabkeep.json"), place.path("fabkeep.json#1")).unwrap();
    let again = init().unwrap();
    assert_eq!(again.id, made.id);
    assert_eq!(place.names("writers/"), [certificate]);
    place.put(&blobs());
    assert_eq!(place.open().history().unwrap().remarks, []);
    // A key is on its way: nothing of it can be used.
    std::fs::remove_dir_all(&location).unwrap();
    std::fs::create_dir_all(place.path("writers")).unwrap();
    std::fs::remove_file(place.writer()).unwrap();
    std::fs::remove_file(place.identity()).unwrap();
    for file in ["writer.unfinished", "identity.unfinished"] {
        std::fs::write(place.folder.path().join(file), b"{\"fab").unwrap();
    }
    init().unwrap();
    assert_eq!(place.objects().len(), whole.len());
    place.put(&blobs());
}

#[test]
fn a_key_that_was_begun_for_one_place_is_not_the_key_of_another_one() {
    let place = Place::new();
    std::fs::rename(place.writer(), place.folder.path().join("writer.unfinished")).unwrap();
    let other = place.folder.path().join("other").display().to_string();
    let made = Repository::init(&other, Some(&place.identity()), Some(&place.writer()), &[]).unwrap();
    assert_ne!(made.id, place.open().config().id);
    assert_ne!(WriterKey::read(&place.writer()).unwrap().repository(), place.open().config().id);
}

#[test]
fn settings_that_are_gone_are_missed_and_no_repository_is_made_over_its_points() {
    let place = Place::new();
    place.put(&blobs());
    std::fs::remove_file(place.path("fabkeep.json")).unwrap();
    let missed = |error: Option<StoreError>| assert!(matches!(error, Some(StoreError::NoSettings { .. })), "{error:?}");
    missed(Repository::open(&place.location()).err());
    let refused = |error: Option<StoreError>| {
        let error = error.unwrap();
        assert!(matches!(error, StoreError::Location { .. }) && error.to_string().contains("fabkeep.json"), "{error}");
    };
    refused(
        Repository::init(&place.location(), Some(&place.identity()), Some(&place.folder.path().join("w")), &[]).err(),
    );
    assert!(!place.path("fabkeep.json").exists() && !place.folder.path().join("w").exists());
}

#[test]
fn locations_are_folders_or_whole_urls() {
    let place = Place::new();
    let other = Place::new();
    let spaced = place.folder.path().join("a b");
    std::fs::rename(other.location(), &spaced).unwrap();
    let url = format!("file://{}", spaced.display().to_string().replace(' ', "%20"));
    assert_eq!(Repository::open(&url).unwrap().folder(), Some(spaced.as_path()));
    for location in ["s3:/bucket/x", "s3:bucket", "S3:bucket", "gs:/x", "az:x", "https:/x"] {
        let made = Repository::init(location, Some(&place.identity()), Some(&place.folder.path().join("w")), &[]);
        assert!(matches!(made, Err(StoreError::Location { .. })), "{location}");
        assert!(!Path::new(location).exists());
    }
}

#[test]
fn key_files_may_begin_with_a_byte_order_mark() {
    let place = Place::new();
    for file in [place.identity(), place.writer()] {
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("\u{feff}{text}")).unwrap();
    }
    let commit = place.put(&blobs());
    place.restores(&commit, &blobs()).unwrap();
}
