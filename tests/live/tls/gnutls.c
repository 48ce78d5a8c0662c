/* GnuTLS of the TLS matrix. */
#include "conversation.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

struct tls {
    gnutls_session_t session;
};

static gnutls_certificate_credentials_t credentials;

static void tls_setup(bool server)
{
    char certificate[512], key[512];
    snprintf(certificate, sizeof(certificate), "%s", bed(server ? "server.pem" : "client.pem"));
    snprintf(key, sizeof(key), "%s", bed(server ? "server.key" : "client.key"));
    gnutls_certificate_allocate_credentials(&credentials);
    if (gnutls_certificate_set_x509_trust_file(credentials, bed("ca.pem"), GNUTLS_X509_FMT_PEM) < 1 ||
        gnutls_certificate_set_x509_key_file(credentials, certificate, key, GNUTLS_X509_FMT_PEM) < 0)
        fail("certificates");
}

static struct tls *tls_open(int fd, bool server, unsigned number)
{
    static const gnutls_datum_t protocol = {.data = (unsigned char *)"http/1.1", .size = 8};
    struct tls *t = calloc(1, sizeof(*t));
    int done;
    (void)number;
    gnutls_init(&t->session, server ? GNUTLS_SERVER : GNUTLS_CLIENT);
    gnutls_set_default_priority(t->session);
    gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_alpn_set_protocols(t->session, &protocol, 1, 0);
    gnutls_session_set_verify_cert(t->session, NULL, 0);
    if (server)
        gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
    gnutls_transport_set_int(t->session, fd);
    do
        done = gnutls_handshake(t->session);
    while (done < 0 && !gnutls_error_is_fatal(done));
    if (!done)
        return t;
    gnutls_deinit(t->session);
    free(t);
    return NULL;
}

static long tls_read(struct tls *t, char *to, size_t most)
{
    long n;
    do
        n = gnutls_record_recv(t->session, to, most);
    while (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED); /* a session ticket, for one */
    return n;
}

static bool tls_write(struct tls *t, const char *from, size_t n)
{
    while (n) { /* a record at a time */
        long sent = gnutls_record_send(t->session, from, n);
        if (sent < 0 && sent != GNUTLS_E_AGAIN && sent != GNUTLS_E_INTERRUPTED)
            return false;
        if (sent > 0) {
            from += sent;
            n -= sent;
        }
    }
    return true;
}

static void tls_close(struct tls *t, bool abandoned)
{
    if (!abandoned)
        gnutls_bye(t->session, GNUTLS_SHUT_WR);
    gnutls_deinit(t->session);
    free(t);
}

static void sha256(const char *data, size_t n, unsigned char out[32])
{
    gnutls_hash_fast(GNUTLS_DIG_SHA256, data, n, out);
}

static const char *tls_version(void)
{
    return gnutls_check_version(NULL);
}
