//! Throw-away certificates.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use vfio_ferry::session::{Credentials, Protection, Tls, Trust};

/// An authority that lives as long as a test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What is in a certificate beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Valid,
    /// Until the year 2001.
    Expired,
}

impl Authority {
    /// A new one.
    pub fn throw_away() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    pub fn pem(&self) -> Vec<u8> {
        self.pem.clone().into_bytes()
    }

    /// A certificate for this name, and its key.
    pub fn issue(&self, name: &str, validity: Validity) -> Credentials {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Credentials {
            certificates: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    /// Trust in whomever it signed for this name.
    pub fn trusts(&self, name: &str) -> Trust {
        Trust::Authority { authorities: self.pem(), name: Some(name.to_owned()) }
    }

    /// Both hosts of an honest migration: the source's and the target's.
    pub fn hosts(&self) -> (Protection, Protection) {
        let source = self.issue("source.test", Validity::Valid);
        let target = self.issue("target.test", Validity::Valid);
        let source = Tls::source(&source, &self.trusts("target.test")).expect("credentials");
        let target = Tls::target(&target, &self.trusts("source.test")).expect("credentials");
        (Protection::Tls(source), Protection::Tls(target))
    }
}
