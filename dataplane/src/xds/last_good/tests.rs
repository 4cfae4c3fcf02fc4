use std::os::unix::fs::PermissionsExt;

use mcp_gateway::proto::config::v1::{Endpoint, OrgBundle, Organization, Server, Transport};
use mcp_gateway::snapshot::compile;

use super::*;
use crate::xds::testing::Publisher;

/// A node's disk.
struct Disk {
    dir: tempfile::TempDir,
    publisher: Publisher,
    identity: Identity,
    last_good: LastGood,
}

impl Disk {
    fn new() -> Self {
        let (dir, publisher) = (tempfile::tempdir().unwrap(), Publisher::new());
        let (identity, vault) = (publisher.ca.identity(), Arc::new(Vault::open(dir.path()).unwrap()));
        let last_good = LastGood::new(dir.path(), vault);
        Self { dir, publisher, identity, last_good }
    }

    fn save(&self, version: u64) -> PathBuf {
        self.keep(&self.publisher.received(version))
    }

    fn keep(&self, received: &Received) -> PathBuf {
        self.last_good.save(received).unwrap();
        self.last_good.dir.join(name(&received.manifest))
    }

    /// The version that a start would serve.
    fn loaded(&self) -> Option<u64> {
        self.last_good.load(&self.identity).map(|found| found.snapshot.version().version)
    }

    fn refusal(&self, path: &Path) -> Refused {
        self.last_good.read(path, &self.identity).err().expect("it must not be used")
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.last_good.names(|name| Some(name.to_owned()));
        names.sort_unstable();
        names
    }
}

#[test]
fn what_was_kept_comes_back_after_a_restart_and_nobody_else_can_read_it() {
    let disk = Disk::new();
    assert_eq!(disk.loaded(), None);
    let received = disk.publisher.received(7);
    let path = disk.keep(&received);
    let vault = Arc::new(Vault::open(disk.dir.path()).unwrap());
    let found = LastGood::new(disk.dir.path(), vault).load(&disk.identity).unwrap();
    assert_eq!((found.received.manifest, found.received.staged.digest()), (received.manifest, received.staged.digest()));
    assert_eq!(found.snapshot.version(), Version { epoch: 1, version: 7 });
    for path in [&path, &disk.dir.path().join("disk.key")] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    let file = fs::read(&path).unwrap();
    assert!(!file.windows(14).any(|bytes| bytes == b"global/default"), "sealed, not only signed");
}

const ACME: &str = "0190a000-0000-7000-8000-0000000000a1";
const RIVAL: &str = "0190a000-0000-7000-8000-0000000000a2";

/// An organisation whose server has a credential; `good` or not.
fn organization(staged: &mut Staged, id: &str, good: bool) {
    let server = Server {
        id: id.replace("00a", "00b"),
        slug: "github".into(),
        transport: Transport::StreamableHttp.into(),
        endpoints: vec![Endpoint { url: "http://127.0.0.1:9/mcp".into(), weight: 0 }],
        credential_id: "c1".into(),
        ..Server::default()
    };
    let slug = format!("org{}", &id[id.len() - 2..]);
    let bundle = OrgBundle {
        org_id: id.into(),
        chunk_count: 1,
        organization: Some(Organization { slug, ..Organization::default() }),
        servers: if good { vec![server] } else { vec![Server::default()] },
        ..OrgBundle::default()
    };
    staged.put(type_url::ORG_BUNDLE, &format!("org/{id}/0"), bundle.encode_to_vec().into()).unwrap();
}

/// One organisation in quarantine with a good past, one without; their credential is of the past, too.
#[test]
fn an_organisation_in_quarantine_comes_back_as_it_was_served() {
    let disk = Disk::new();
    let compiled = |received: &Received, previous: Option<&Snapshot>| {
        compile(&received.manifest, &received.staged, &disk.identity.pool_keys, previous).ok().unwrap()
    };
    let credential = UpstreamCredential { id: "c1".into(), header: "authorization".into(), value: "canary-s3cret".into() };
    let good = disk.publisher.changed(1, |staged, _| {
        staged.put(type_url::SECRET_ENVELOPE, "secrets/default", disk.publisher.secrets(vec![credential.clone()])).unwrap();
        organization(staged, ACME, true);
    });
    let mut bad = disk.publisher.changed(2, |staged, _| {
        organization(staged, ACME, false);
        organization(staged, RIVAL, false);
    });
    let first = compiled(&good, None);
    let second = compiled(&bad, Some(&first));
    assert_eq!(second.quarantined().len(), 2);
    bad.fallbacks = second.fallbacks();
    let path = disk.keep(&bad);
    let file = fs::read(&path).unwrap();
    assert!(!file.windows(13).any(|bytes| bytes == b"canary-s3cret"), "sealed");

    let found = disk.last_good.load(&disk.identity).unwrap();
    assert_eq!(found.snapshot.version().version, 2);
    assert_eq!(found.snapshot.org(ACME).map(|org| org.digest), first.org(ACME).map(|org| org.digest));
    assert!(found.snapshot.org(RIVAL).is_none());
    assert_eq!(found.snapshot.upstream_credential("c1"), Some(&credential));
    assert_eq!(found.snapshot.report(), second.report(), "and says so again");
    assert_eq!(found.received.fallbacks, bad.fallbacks, "as often as it is started");
}

#[test]
fn every_changed_bit_and_every_cut_is_refused() {
    let disk = Disk::new();
    let path = disk.save(1);
    let whole = fs::read(&path).unwrap();
    for position in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[position] ^= 1 << bit;
            disk.last_good.vault.open_file(&path, damaged).expect_err("a changed bit");
        }
        disk.last_good.vault.open_file(&path, whole[..position].to_vec()).expect_err("a file that was cut");
    }
    assert_eq!(disk.loaded(), Some(1), "the file itself is good");
}

#[test]
fn a_file_of_another_node_or_under_another_name_is_refused() {
    let (disk, other) = (Disk::new(), Disk::new());
    let path = disk.save(1);
    let foreign = other.last_good.dir.join(path.file_name().unwrap());
    fs::create_dir_all(&other.last_good.dir).unwrap();
    fs::copy(&path, &foreign).unwrap();
    assert!(matches!(other.refusal(&foreign), Refused::Broken(Broken::Sealed)));
    let renamed = disk.last_good.dir.join(path.file_name().unwrap().to_str().unwrap().replace("-1-1-", "-1-9-"));
    fs::copy(&path, &renamed).unwrap();
    assert!(matches!(disk.refusal(&renamed), Refused::Broken(Broken::Sealed)));
}

#[test]
fn what_is_sealed_is_still_checked_like_what_comes_over_a_stream() {
    type Case = (Received, fn(&Refused) -> bool, bool);
    let disk = Disk::new();
    let changed = |change: fn(&mut Staged, &mut Manifest)| disk.publisher.changed(1, change);
    let mut forged = disk.publisher.received(1);
    forged.manifest.created_at_ms += 1;
    let mut unknown = disk.publisher.received(1);
    unknown.manifest.key_id = "m9".into();
    let cases: [Case; 6] = [
        (forged, |refused| matches!(refused, Refused::Manifest(ManifestError::Forged { .. })), true),
        (unknown, |refused| matches!(refused, Refused::Manifest(ManifestError::UnknownKey { .. })), true),
        (
            changed(|_, manifest| manifest.scope = "other".into()),
            |refused| matches!(refused, Refused::Scope { expected, found } if expected == "default" && found == "other"),
            true,
        ),
        (changed(|_, manifest| manifest.digest = vec![0; 32].into()), |refused| matches!(refused, Refused::Digest), true),
        (
            changed(|staged, _| staged.clear(type_url::GLOBAL)),
            |refused| matches!(refused, Refused::Compile(problems) if !problems.is_empty()),
            true,
        ),
        (
            changed(|_, manifest| manifest.min_node_version = "999.0.0".into()),
            |refused| matches!(refused, Refused::NewerNode { .. }),
            false, // an upgrade makes it good again
        ),
    ];
    for (received, expected, set_aside) in cases {
        let path = disk.keep(&received);
        let refused = disk.refusal(&path);
        assert!(expected(&refused), "{refused:?}");
        assert_eq!(disk.loaded(), None);
        assert_eq!(!path.exists(), set_aside, "{refused}");
        fs::remove_dir_all(&disk.last_good.dir).unwrap();
    }
}

#[test]
fn the_newest_that_can_be_used_is_used_and_the_others_are_set_aside() {
    let disk = Disk::new();
    let (_, second, third) = (disk.save(1), disk.save(2), disk.save(10));
    fs::write(&third, b"").unwrap();
    fs::write(&second, [&[9], &fs::read(&second).unwrap()[1..]].concat()).unwrap();
    assert_eq!(disk.loaded(), Some(1));
    assert!(!second.exists() && !third.exists());
    assert_eq!(disk.names().iter().filter(|name| name.ends_with(".corrupt")).count(), 2);
    assert_eq!(disk.loaded(), Some(1));
}

#[test]
fn three_are_kept_and_none_of_an_earlier_life() {
    let disk = Disk::new();
    let paths: Vec<PathBuf> = (8..=12).map(|version| disk.save(version)).collect();
    let expected: Vec<String> = paths[2..].iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(disk.names(), expected);
    for stray in
        ["snapshot-1-1-cut.new", "snapshot-1-1.corrupt", "snapshot-1-2.corrupt", "snapshot-1-3.corrupt", "snapshot-1-4.corrupt"]
    {
        fs::write(disk.last_good.dir.join(stray), b"").unwrap();
    }
    fs::write(disk.last_good.dir.join("README"), b"").unwrap();
    // The node joined another fleet, whose versions are smaller.
    disk.save(3);
    let names = disk.names();
    assert_eq!(names.iter().filter(|name| parse(name).is_some()).count(), 1, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with(CORRUPT)).count(), 3, "{names:?}");
    assert!(names.iter().any(|name| name == "README") && !names.iter().any(|name| name.ends_with(".new")), "{names:?}");
    assert_eq!(disk.loaded(), Some(3));
}
