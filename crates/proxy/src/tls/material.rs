//! The secrets that configurations refer to: those discovered, the workload's own, and files; and what is wrong with them.
//! It does no I/O: files are put in by whoever watches them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maille_identity::Workload;
use maille_identity::verify::{BadSecret, Certificate, Checks, RevocationList, Roots, revocation_lists};

use crate::config::{CertificateData, Data, SdsName, Secret, SecretSource, TlsContext, Validation};

/// The names of what the workload itself has.
const OWN_CERTIFICATE: &str = "default";
const OWN_ROOTS: &str = "ROOTCA";

/// Everything that is known of secrets.
#[derive(Default)]
pub(crate) struct Materials {
    secrets: BTreeMap<Arc<str>, State>,
    /// `None`: not read yet.
    files: BTreeMap<Arc<str>, Option<Content>>,
    workload: Option<Own>,
    /// What has been read of the above, by where it came from.
    certificates: HashMap<String, Kept<Certificate>>,
    roots: HashMap<String, Kept<Roots>>,
    revoked: HashMap<String, Kept<Revoked>>,
    /// Roots, and the same with the system's.
    both: Vec<(Arc<Roots>, Arc<Roots>)>,
    problems: BTreeMap<String, String>,
    changes: u64,
}

type Revoked = Vec<RevocationList>;

/// What a file has in it, or why it cannot be read.
type Content = Result<Arc<[u8]>, String>;

/// A secret that is discovered.
enum State {
    /// Until then it is waited for; `None` is for ever.
    Awaited(Option<Instant>),
    /// There is none, or it has not come in time.
    Absent,
    Known(Secret),
}

/// What the workload has: nothing so far, or this.
#[derive(Default)]
struct Own {
    certificate: Option<Arc<Certificate>>,
    roots: Option<Arc<Roots>>,
}

/// Something that was read, and the bytes it was read from.
struct Kept<T> {
    from: Vec<Arc<[u8]>>,
    value: Arc<T>,
}

/// The secrets of one configuration.
#[derive(Clone, Default)]
pub(crate) struct Resolved {
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) trust: Option<Trust>,
}

/// How the other side is checked.
#[derive(Clone)]
pub(crate) struct Trust {
    validation: Validation,
    roots: Option<Arc<Roots>>,
    revoked: Option<Arc<Revoked>>,
}

/// Why there are no secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// They may still come.
    Awaited,
    /// They will not come soon.
    Missing,
}

impl Resolved {
    /// Whether nothing has changed.
    pub(crate) fn is(&self, other: &Resolved) -> bool {
        let certificates = self.certificates.len() == other.certificates.len()
            && self.certificates.iter().zip(&other.certificates).all(|(a, b)| Arc::ptr_eq(a, b));
        certificates
            && match (&self.trust, &other.trust) {
                (None, None) => true,
                (Some(a), Some(b)) => {
                    a.validation == b.validation && same(&a.roots, &b.roots) && same(&a.revoked, &b.revoked)
                }
                _ => false,
            }
    }

    /// The checks that the other side has to pass.
    pub(crate) fn checks(&self) -> Option<Checks> {
        let Trust { validation, roots, revoked } = self.trust.as_ref()?;
        let names = validation.names.clone();
        Some(Checks {
            roots: roots.clone(),
            revoked: revoked.as_deref().cloned().unwrap_or_default(),
            revoked_leaf_only: validation.crl_of_leaf_only,
            allow_expired: validation.allow_expired,
            accept_untrusted: validation.accept_untrusted,
            max_depth: validation.max_depth,
            hashes: validation.hashes.clone(),
            keys: validation.keys.clone(),
            names: (!names.is_empty())
                .then(|| Arc::new(move |peer: &_| names.iter().any(|name| name.accepts(peer))) as _),
            server_name: false,
        })
    }
}

fn same<T>(a: &Option<Arc<T>>, b: &Option<Arc<T>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

impl Materials {
    /// Grows with every change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Says what configurations refer to now; the rest is forgotten.
    pub(crate) fn want<'c>(&mut self, contexts: impl Iterator<Item = &'c TlsContext>, now: Instant) {
        let mut names: BTreeMap<Arc<str>, Option<Duration>> = BTreeMap::new();
        let mut files = BTreeSet::new();
        let mut name = |sds: &SdsName, files: &mut BTreeSet<Arc<str>>| match by_file(&sds.name) {
            Some(secret) => files_of_secret(&secret, files),
            None => drop(names.insert(sds.name.clone(), sds.patience)),
        };
        for context in contexts {
            for source in &context.certificates {
                match source {
                    SecretSource::Sds(sds) => name(sds, &mut files),
                    SecretSource::Given(data) => files_of(data, &mut files),
                }
            }
            if let Some(validation) = &context.validation {
                files_of_validation(validation, &mut files);
                validation.secret.iter().for_each(|sds| name(sds, &mut files));
            }
        }
        self.secrets.retain(|name, _| names.contains_key(name));
        for (name, patience) in names {
            let awaited = || State::Awaited(patience.map(|patience| now + patience));
            let state = self.secrets.entry(name).or_insert_with(awaited);
            if let State::Known(secret) = state {
                files_of_secret(secret, &mut files);
            }
        }
        self.files.retain(|path, _| files.contains(path));
        self.certificates.retain(|_, kept| Arc::strong_count(&kept.value) > 1);
        self.roots.retain(|_, kept| Arc::strong_count(&kept.value) > 1);
        self.revoked.retain(|_, kept| Arc::strong_count(&kept.value) > 1);
        self.both.retain(|(_, both)| Arc::strong_count(both) > 1);
        for path in files {
            self.files.entry(path).or_insert(None);
        }
    }

    /// The names to ask the control plane for.
    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        self.secrets.keys().filter(|name| !self.is_own(name)).cloned().collect()
    }

    /// The files to read, and to read again when they change.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.keys()
    }

    /// What is wrong with secrets: one sentence each.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.values()
    }

    /// Takes a secret; `None`: the control plane has none.
    pub(crate) fn put_secret(&mut self, name: &Arc<str>, secret: Option<Secret>) {
        if let Some(state) = self.secrets.get_mut(name) {
            *state = secret.map_or(State::Absent, State::Known);
            self.changes += 1;
        }
    }

    /// Takes what a file has in it, or why it cannot be read.
    pub(crate) fn put_file(&mut self, path: &Arc<str>, content: Content) {
        if let Some(known) = self.files.get_mut(path) {
            *known = Some(content);
            self.changes += 1;
        }
    }

    /// Takes what the workload has; from the first call on, its names are not asked for elsewhere.
    pub(crate) fn put_workload(&mut self, workload: Option<&Workload>) -> Result<(), BadSecret> {
        let own = match workload {
            Some(workload) => Own {
                certificate: Some(Arc::new(Certificate::new(workload.chain.clone(), workload.key.clone_key())?)),
                roots: Some(Arc::new(Roots::new(workload.roots.clone())?)),
            },
            None => Own::default(),
        };
        self.workload = Some(own);
        self.changes += 1;
        Ok(())
    }

    /// What is in use: certificates of our own, and roots, for whoever asks.
    pub(crate) fn in_use(&self) -> (Vec<&Certificate>, Vec<&Roots>) {
        let own = self.workload.as_ref();
        let certificates = self.certificates.values().map(|kept| &kept.value);
        let roots = self.roots.values().map(|kept| &kept.value);
        (
            own.and_then(|own| own.certificate.as_ref()).into_iter().chain(certificates).map(|c| &**c).collect(),
            own.and_then(|own| own.roots.as_ref()).into_iter().chain(roots).map(|r| &**r).collect(),
        )
    }

    /// The workload's own certificate, and the name by which configurations know it.
    pub(crate) fn own_certificate(&self) -> Option<(&str, &Certificate)> {
        Some((OWN_CERTIFICATE, self.workload.as_ref()?.certificate.as_ref()?))
    }

    /// The roots it came with.
    pub(crate) fn own_roots(&self) -> Option<(&str, &Roots)> {
        Some((OWN_ROOTS, self.workload.as_ref()?.roots.as_ref()?))
    }

    /// When [`Materials::give_up`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadline = |state: &State| match state {
            State::Awaited(deadline) => *deadline,
            _ => None,
        };
        self.secrets.values().filter_map(deadline).min()
    }

    /// Waits no longer for what should have come by now.
    pub(crate) fn give_up(&mut self, now: Instant) {
        for state in self.secrets.values_mut() {
            if matches!(state, State::Awaited(Some(deadline)) if *deadline <= now) {
                *state = State::Absent;
                self.changes += 1;
            }
        }
    }

    /// The secrets of a configuration.
    pub(crate) fn resolve(&mut self, context: &TlsContext) -> Result<Resolved, Unresolved> {
        let mut certificates = Vec::with_capacity(context.certificates.len());
        let mut worst = None;
        for source in &context.certificates {
            match self.certificate(source) {
                Ok(certificate) => certificates.push(certificate),
                Err(why) => worst = Some(why.or(worst)),
            }
        }
        let trust = match &context.validation {
            Some(validation) => match self.trust(validation) {
                Ok(trust) => Some(trust),
                Err(why) => {
                    worst = Some(why.or(worst));
                    None
                }
            },
            None => None,
        };
        worst.map_or(Ok(Resolved { certificates, trust }), Err)
    }

    fn is_own(&self, name: &str) -> bool {
        self.workload.is_some() && (name == OWN_CERTIFICATE || name == OWN_ROOTS)
    }

    fn certificate(&mut self, source: &SecretSource) -> Result<Arc<Certificate>, Unresolved> {
        let (label, data) = match source {
            SecretSource::Given(data) => ("a certificate".to_owned(), data.clone()),
            SecretSource::Sds(sds) => {
                if let Some(own) = self.workload.as_ref().filter(|_| *sds.name == *OWN_CERTIFICATE) {
                    return own.certificate.clone().ok_or(Unresolved::Awaited);
                }
                match self.secret(&sds.name)? {
                    Secret::Certificate(data) => (format!("secret {:?}", sds.name), data),
                    Secret::Validation(_) => return Err(Unresolved::Missing),
                }
            }
        };
        let key = format!("{data:?}");
        let staple = data.staple.as_ref().map_or_else(|| Ok(Arc::default()), |staple| self.bytes(staple));
        let from = [self.bytes(&data.chain), self.bytes(&data.key), staple];
        self.read(
            &key,
            &label,
            from,
            |materials| &mut materials.certificates,
            |from| Certificate::read(&from[0], &from[1])?.stapled(&from[2]),
        )
    }

    fn trust(&mut self, own: &Validation) -> Result<Trust, Unresolved> {
        let mut workload_roots = None;
        let validation = match &own.secret {
            None => own.clone(),
            Some(sds) if self.is_own(&sds.name) => {
                let roots = self.workload.as_ref().and_then(|workload| workload.roots.clone());
                workload_roots = Some(roots.ok_or(Unresolved::Awaited)?);
                own.with(&Validation::default())
            }
            Some(sds) => match self.secret(&sds.name)? {
                Secret::Validation(more) => own.with(&more),
                Secret::Certificate(_) => return Err(Unresolved::Missing),
            },
        };
        let mut roots = workload_roots;
        if let Some(data) = &validation.trusted_ca {
            let from = [self.bytes(data)];
            let key = format!("{data:?}");
            let read = self.read(&key, "trusted_ca", from, |m| &mut m.roots, |from| Roots::read(&from[0]))?;
            roots = Some(read);
        }
        if validation.system_roots {
            let read = self.read("system", "roots", [], |m| &mut m.roots, |_| Ok(Roots::of_system()))?;
            roots = Some(match roots {
                Some(roots) => self.both(&roots, &read),
                None => read,
            });
        }
        let revoked = match &validation.crl {
            Some(data) => {
                let from = [self.bytes(data)];
                let key = format!("{data:?}");
                Some(self.read(&key, "crl", from, |m| &mut m.revoked, |from| revocation_lists(&from[0]))?)
            }
            None => None,
        };
        if !validation.names.is_empty() && roots.is_none() {
            // Anybody can write a name.
            return Err(Unresolved::Missing);
        }
        Ok(Trust { validation, roots, revoked })
    }

    /// Given roots and the system's; the same as long as these are.
    fn both(&mut self, given: &Arc<Roots>, system: &Arc<Roots>) -> Arc<Roots> {
        if let Some((_, both)) = self.both.iter().find(|(known, _)| Arc::ptr_eq(known, given)) {
            return both.clone();
        }
        let both = Arc::new(given.and(system));
        self.both.push((given.clone(), both.clone()));
        both
    }

    fn secret(&self, name: &str) -> Result<Secret, Unresolved> {
        if let Some(secret) = by_file(name) {
            return Ok(secret);
        }
        match self.secrets.get(name) {
            Some(State::Known(secret)) => Ok(secret.clone()),
            Some(State::Absent) => Err(Unresolved::Missing),
            Some(State::Awaited(_)) | None => Err(Unresolved::Awaited),
        }
    }

    fn bytes(&self, data: &Data) -> Result<Arc<[u8]>, Bytes> {
        match data {
            Data::Inline(bytes) => Ok(bytes.clone()),
            Data::File(path) => match self.files.get(path) {
                Some(Some(Ok(bytes))) => Ok(bytes.clone()),
                Some(Some(Err(why))) => Err(Bytes::Unreadable(format!("cannot read {path}: {why}"))),
                Some(None) | None => Err(Bytes::Unread),
            },
        }
    }

    /// Reads something, unless that has been done. What was good before stays while what is there now is not: files
    /// that belong together do not change together.
    fn read<T, const N: usize>(
        &mut self,
        key: &str,
        label: &str,
        from: [Result<Arc<[u8]>, Bytes>; N],
        kept: impl Fn(&mut Materials) -> &mut HashMap<String, Kept<T>>,
        read: impl FnOnce(&[Arc<[u8]>]) -> Result<T, BadSecret>,
    ) -> Result<Arc<T>, Unresolved> {
        let from: Result<Vec<Arc<[u8]>>, Bytes> = from.into_iter().collect();
        let last = kept(self).get(key);
        if let (Ok(from), Some(last)) = (&from, last)
            && last.from == *from
        {
            return Ok(last.value.clone());
        }
        let last = last.map(|last| last.value.clone());
        let (problem, why) = match from {
            Ok(from) => match read(&from) {
                Ok(value) => {
                    let value = Arc::new(value);
                    kept(self).insert(key.to_owned(), Kept { from, value: value.clone() });
                    self.problems.remove(key);
                    return Ok(value);
                }
                Err(error) => (error.to_string(), Unresolved::Missing),
            },
            Err(Bytes::Unreadable(why)) => (why, Unresolved::Missing),
            Err(Bytes::Unread) => return last.ok_or(Unresolved::Awaited),
        };
        if self.problems.insert(key.to_owned(), format!("{label}: {problem}")).is_none() {
            tracing::warn!("{label} ({key}): {problem}");
        }
        last.ok_or(why)
    }
}

/// Why there are no bytes.
enum Bytes {
    Unread,
    Unreadable(String),
}

impl Unresolved {
    /// What will not come outweighs what may.
    fn or(self, other: Option<Unresolved>) -> Unresolved {
        match other {
            Some(Unresolved::Missing) => Unresolved::Missing,
            _ => self,
        }
    }
}

/// Names of secrets that say which files they are in.
fn by_file(name: &str) -> Option<Secret> {
    if let Some(files) = name.strip_prefix("file-cert:") {
        let (chain, key) = files.split_once('~')?;
        let data = CertificateData { chain: Data::File(chain.into()), key: Data::File(key.into()), staple: None };
        return Some(Secret::Certificate(data));
    }
    let path = name.strip_prefix("file-root:")?;
    let roots = match path {
        "system" => Validation { system_roots: true, ..Validation::default() },
        path => Validation { trusted_ca: Some(Data::File(path.into())), ..Validation::default() },
    };
    Some(Secret::Validation(Box::new(roots)))
}

fn files_of_secret(secret: &Secret, out: &mut BTreeSet<Arc<str>>) {
    match secret {
        Secret::Certificate(data) => files_of(data, out),
        Secret::Validation(validation) => files_of_validation(validation, out),
    }
}

fn files_of(data: &CertificateData, out: &mut BTreeSet<Arc<str>>) {
    file_of(&data.chain, out);
    file_of(&data.key, out);
    data.staple.iter().for_each(|data| file_of(data, out));
}

fn files_of_validation(validation: &Validation, out: &mut BTreeSet<Arc<str>>) {
    validation.trusted_ca.iter().chain(&validation.crl).for_each(|data| file_of(data, out));
}

fn file_of(data: &Data, out: &mut BTreeSet<Arc<str>>) {
    if let Data::File(path) = data {
        out.insert(path.clone());
    }
}
