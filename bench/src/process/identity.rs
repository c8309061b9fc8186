//! Who the two processes of a run are to each other under TLS: certificates that live as long as the run,
//! each pinned by the other side.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::{Credentials, Tls, Trust};
use crate::spec::Side;

/// One side's, as its process is told.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    certificate: String,
    key: String,
    /// SHA-256 of the other side's public key.
    peer: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// The source's and the target's.
    pub(crate) fn pair() -> Result<[Identity; 2], String> {
        let [source, target] = [credentials()?, credentials()?];
        Ok([Identity::new(&source, &target)?, Identity::new(&target, &source)?])
    }

    fn new(own: &Credentials, other: &Credentials) -> Result<Identity, String> {
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        let peer = other.key_hash().map_err(|error| error.to_string())?;
        Ok(Identity { certificate: text(&own.certificates), key: text(&own.key), peer })
    }

    /// As the engine takes it.
    pub(crate) fn tls(&self, side: Side) -> Result<Tls, String> {
        let credentials = Credentials {
            certificates: self.certificate.clone().into_bytes(),
            key: self.key.clone().into_bytes(),
        };
        let trust = Trust::Keys(vec![self.peer]);
        let tls = match side {
            Side::Source => Tls::source(&credentials, &trust),
            Side::Target => Tls::target(&credentials, &trust),
        };
        tls.map_err(|error| error.to_string())
    }
}

fn credentials() -> Result<Credentials, String> {
    let made = rcgen::generate_simple_self_signed(vec!["ferry-bench".to_owned()]);
    let made = made.map_err(|error| error.to_string())?;
    Ok(Credentials {
        certificates: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    })
}
