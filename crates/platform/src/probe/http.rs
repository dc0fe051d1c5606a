//! One GET request over an existing stream, with TLS if the endpoint requires it.

use std::sync::Arc;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Longest answer read, in bytes.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// How an endpoint is spoken to with TLS.
#[derive(Default)]
pub(crate) struct Tls {
    /// PEM certificates that may vouch for the server. Without them any certificate will do: the stream is known to lead to the node (the
    /// API server's forwarding, this machine's loopback), and nothing secret is sent.
    pub roots: Option<Vec<u8>>,
    /// The client's own certificate chain and key, PEM: for endpoints that want one.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// The server's name, for the check against the roots.
    pub name: String,
}

impl Tls {
    fn connector(&self) -> Result<(TlsConnector, ServerName<'static>), String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let wants_client = match &self.roots {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|error| format!("the CA certificates: {error}"))?;
                    roots.add(certificate).map_err(|error| format!("the CA certificates: {error}"))?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider: Arc::clone(&provider) })),
        };
        let config = match &self.client {
            Some((chain, key)) => {
                let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let chain = chain.map_err(|error| format!("the client certificate: {error}"))?;
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|_| "the client key is not a PEM key".to_owned())?;
                wants_client.with_client_auth_cert(chain, key).map_err(|error| format!("the client key: {error}"))?
            }
            None => wants_client.with_no_client_auth(),
        };
        let name = ServerName::try_from(self.name.clone()).map_err(|error| format!("{}: {error}", self.name))?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }
}

/// Takes any certificate, but checks that the server holds its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The body of `GET path`; statuses other than success are errors, except where `any_status` (`/healthz` reports with 503 what fails).
pub(crate) async fn get<S>(stream: S, tls: Option<&Tls>, path: &str, any_status: bool) -> Result<String, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match tls {
        Some(tls) => {
            let (connector, name) = tls.connector()?;
            let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
            get_plain(stream, path, any_status).await
        }
        None => get_plain(stream, path, any_status).await,
    }
}

async fn get_plain<S>(stream: S, path: &str, any_status: bool) -> Result<String, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let driver = tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", "localhost")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|error| error.to_string())?;
    driver.abort();
    if !status.is_success() && !any_status {
        return Err(format!("HTTP status {status}"));
    }
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
