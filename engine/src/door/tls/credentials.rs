//! Who this host is, and whom it believes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::ALPN;
use super::verify::{Named, Pinned};
use crate::error::{Error, TlsFault};

/// What this host shows of itself: a certificate, after it those that lead to its authority, and its
/// key, all in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificates.
    pub certificates: Vec<u8>,
    /// The private key: PKCS #8, PKCS #1 or SEC1.
    pub key: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// SHA-256 of the certificate's SubjectPublicKeyInfo: what the other host pins
    /// ([`Trust::Keys`]).
    ///
    /// # Errors
    /// [`Error::Tls`] with [`TlsFault::Credentials`].
    pub fn key_hash(&self) -> Result<[u8; 32], Error> {
        let what = "the certificate";
        let all = certificates(&self.certificates, what)?;
        let leaf = all.first().ok_or_else(|| ours(what, "there is none"))?;
        super::verify::key_hash(leaf).map_err(|error| ours(what, error))
    }
}

/// Whom this host believes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trust {
    /// Whoever has a certificate that one of these authorities signed, that is valid today, and that
    /// has this name: a DNS name or an IP address among its subjectAltNames. Without a name, which only
    /// a target may leave out, whomever the authority knows.
    Authority {
        /// The authorities' certificates in PEM.
        authorities: Vec<u8>,
        /// The peer's name.
        name: Option<String>,
    },
    /// Whoever has one of these keys: SHA-256 of the certificate's SubjectPublicKeyInfo, which whoever
    /// starts both hosts carries from one to the other. Names and dates then mean nothing.
    Keys(Vec<[u8; 32]>),
}

/// TLS 1.3 with certificates on both sides, made ready: one host's side of it. Clones are one and the
/// same.
#[derive(Clone)]
pub struct Tls {
    pub(super) side: Side,
    pub(super) kernel: bool,
}

#[derive(Clone)]
pub(super) enum Side {
    Source(Arc<ClientConfig>, ServerName<'static>),
    Target(Arc<ServerConfig>),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("is_source", &self.is_source()).finish_non_exhaustive()
    }
}

/// AES-128-GCM first: where both have the instructions it is the fastest.
fn ciphers() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
        provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
        provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..provider::default_provider() })
}

fn ours(what: &str, why: impl fmt::Display) -> Error {
    TlsFault::Credentials(format!("{what}: {why}")).into()
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if all.is_empty() => Err(ours(what, "there is no certificate in it")),
        Ok(all) => Ok(all),
        Err(error) => Err(ours(what, error)),
    }
}

fn key(credentials: &Credentials) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&credentials.key).map_err(|error| ours("the private key", error))
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem, "the authorities")? {
        roots.add(authority).map_err(|error| ours("an authority's certificate", error))?;
    }
    Ok(Arc::new(roots))
}

fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| ours("the peer's name", format!("{name:?} is no DNS name or IP address")))
}

impl Tls {
    /// For a source, which connects.
    ///
    /// # Errors
    /// [`Error::Tls`] with [`TlsFault::Credentials`].
    pub fn source(credentials: &Credentials, trust: &Trust) -> Result<Tls, Error> {
        let ciphers = ciphers();
        let algorithms = ciphers.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(ciphers.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| ours("TLS 1.3", error))?;
        let (builder, name) = match trust {
            Trust::Authority { name: None, .. } => {
                let why = "a source has to know it: any certificate of the authority would do else";
                return Err(ours("the target's name", why));
            }
            Trust::Authority { authorities, name: Some(name) } => {
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots(authorities)?, ciphers)
                        .build()
                        .map_err(|error| ours("the authorities", error))?;
                (builder.with_webpki_verifier(verifier), server_name(name)?)
            }
            Trust::Keys(keys) => {
                let pinned = Pinned { keys: keys.clone(), algorithms };
                let builder =
                    builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned));
                // Not sent, and not looked at.
                (builder, server_name("pinned.invalid")?)
            }
        };
        let chain = certificates(&credentials.certificates, "the certificate")?;
        let mut config = builder
            .with_client_auth_cert(chain, key(credentials)?)
            .map_err(|error| ours("the certificate and its key", error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        config.enable_secret_extraction = true;
        Ok(Tls { side: Side::Source(Arc::new(config), name), kernel: true })
    }

    /// For a target, which accepts.
    ///
    /// # Errors
    /// As [`source`](Self::source).
    pub fn target(credentials: &Credentials, trust: &Trust) -> Result<Tls, Error> {
        let ciphers = ciphers();
        let algorithms = ciphers.signature_verification_algorithms;
        let builder = ServerConfig::builder_with_provider(ciphers.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| ours("TLS 1.3", error))?;
        let builder = match trust {
            Trust::Authority { authorities, name } => {
                let authority =
                    WebPkiClientVerifier::builder_with_provider(roots(authorities)?, ciphers)
                        .build()
                        .map_err(|error| ours("the authorities", error))?;
                let name = name.as_deref().map(server_name).transpose()?;
                builder.with_client_cert_verifier(Arc::new(Named { authority, name }))
            }
            Trust::Keys(keys) => {
                let pinned = Pinned { keys: keys.clone(), algorithms };
                builder.with_client_cert_verifier(Arc::new(pinned))
            }
        };
        let chain = certificates(&credentials.certificates, "the certificate")?;
        let mut config = builder
            .with_single_cert(chain, key(credentials)?)
            .map_err(|error| ours("the certificate and its key", error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.enable_secret_extraction = true;
        Ok(Tls { side: Side::Target(Arc::new(config)), kernel: true })
    }

    /// For a source, from a folder as QEMU's `tls-creds-x509` has it for a client: `ca-cert.pem`,
    /// `client-cert.pem`, `client-key.pem`. The target has a certificate with `name`.
    ///
    /// # Errors
    /// As [`source`](Self::source).
    pub fn source_from_folder(folder: impl AsRef<Path>, name: &str) -> Result<Tls, Error> {
        let (credentials, trust) = folder_of(folder.as_ref(), "client", Some(name))?;
        Tls::source(&credentials, &trust)
    }

    /// For a target, from a folder as QEMU's `tls-creds-x509` has it for a server: `ca-cert.pem`,
    /// `server-cert.pem`, `server-key.pem`. The source has a certificate with `name`, or with any.
    ///
    /// # Errors
    /// As [`source`](Self::source).
    pub fn target_from_folder(folder: impl AsRef<Path>, name: Option<&str>) -> Result<Tls, Error> {
        let (credentials, trust) = folder_of(folder.as_ref(), "server", name)?;
        Tls::target(&credentials, &trust)
    }

    /// Whether the kernel may seal and open the records, where it can (a module called `tls`): that
    /// spares a thread, two copies and 264 KiB a stream. True by default; where the kernel cannot, or not
    /// this cipher, the engine does it. [`Session::protection`](crate::Session::protection) says who did.
    ///
    /// The kernel keeps a stream's first keys. They are good for 362 GiB in each direction, and a stream
    /// that gets there breaks with [`TlsFault::KeyUsedUp`]. One whose peer does it by itself breaks with
    /// [`TlsFault::Local`] when that takes its second key, after 256 GiB. The engine by itself has no
    /// such end: false is for whoever moves that much over one stream.
    pub fn with_kernel(self, kernel: bool) -> Tls {
        Tls { kernel, ..self }
    }

    /// Whether it is a source's.
    pub fn is_source(&self) -> bool {
        matches!(self.side, Side::Source(..))
    }
}

fn folder_of(folder: &Path, host: &str, name: Option<&str>) -> Result<(Credentials, Trust), Error> {
    let read = |file: String| {
        let path = folder.join(file);
        std::fs::read(&path).map_err(|error| ours(&path.display().to_string(), error))
    };
    let credentials = Credentials {
        certificates: read(format!("{host}-cert.pem"))?,
        key: read(format!("{host}-key.pem"))?,
    };
    let authorities = read("ca-cert.pem".to_owned())?;
    Ok((credentials, Trust::Authority { authorities, name: name.map(str::to_owned) }))
}

/// A key that nobody keeps, and its certificate.
#[cfg(test)]
pub(super) fn throw_away() -> Credentials {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("made");
    Credentials {
        certificates: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    }
}
