//! TLS for connections that are already dialled: the system's authorities, and those of an `origins:` entry.

use crate::failure::{Failure, Turn};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{path::Path, sync::Arc};

/// Trusts the system's authorities and, where there is one, those in the PEM file `additional`.
///
/// # Errors
/// `origin.ca`: the file cannot be read or holds no certificate.
pub(super) fn client(additional: Option<&Path>) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    // A system without authorities trusts nobody: the handshake says so, for the host it happens with.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = additional {
        let (added, ignored) = roots.add_parsable_certificates(certificates(path)?);
        if added == 0 || ignored > 0 {
            return Err(unusable(path, "a certificate in it cannot be used"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = std::fs::read(path).map_err(|error| unusable(path, &error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(unusable(path, "it holds no certificate in PEM form")),
    }
}

fn unusable(path: &Path, problem: &str) -> Failure {
    let message = format!(
        "the authority `{}` under `origins:` cannot be used: {problem}",
        path.display()
    );
    Failure::new(Turn::PipelineAuthor, "origin.ca", message)
        .help("`ca` names a PEM file (-----BEGIN CERTIFICATE-----), relative to the project's root")
}
