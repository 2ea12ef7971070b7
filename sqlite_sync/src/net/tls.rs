//! Whose certificates are trusted: those of a file, or the system's.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use sync_shared::{Error, Result, Tls};

/// Errors: `InvalidArgument`.
pub fn roots(tls: &Tls) -> Result<Vec<CertificateDer<'static>>> {
    let Some(path) = &tls.ca else { return Ok(rustls_native_certs::load_native_certs().certs) };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(roots) if !roots.is_empty() => Ok(roots),
        _ => Err(Error::argument(format!("option \"tls.ca\": {path:?} is no file of certificates in PEM"))),
    }
}

/// Errors: `InvalidArgument`.
pub fn client_config(tls: &Tls) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots(tls)?);
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(Error::corrupt)?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
