/*
 * OpenSSL of the TLS matrix, linked statically. Every other connection uses the forms with `_ex`; some peek before they
 * read.
 */
#include "conversation.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>

struct tls {
    SSL *ssl;
    unsigned number;
};

static SSL_CTX *context;

static void tls_setup(bool server)
{
    static const unsigned char offered[] = "\x08http/1.1";
    context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    char name[16];
    snprintf(name, sizeof(name), "%s.pem", server ? "server" : "client");
    bool good = SSL_CTX_use_certificate_chain_file(context, bed(name)) == 1;
    snprintf(name, sizeof(name), "%s.key", server ? "server" : "client");
    good = good && SSL_CTX_use_PrivateKey_file(context, bed(name), SSL_FILETYPE_PEM) == 1;
    good = good && SSL_CTX_load_verify_locations(context, bed("ca.pem"), NULL) == 1;
    if (!good)
        fail("certificates");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_id_context(context, offered, 8);
    if (!server)
        SSL_CTX_set_alpn_protos(context, offered, sizeof(offered) - 1);
}

static struct tls *tls_open(int fd, bool server, unsigned number)
{
    struct tls *t = calloc(1, sizeof(*t));
    t->ssl = SSL_new(context);
    t->number = number;
    SSL_set_fd(t->ssl, fd);
    if ((server ? SSL_accept(t->ssl) : SSL_connect(t->ssl)) == 1)
        return t;
    SSL_free(t->ssl);
    free(t);
    return NULL;
}

static long tls_read(struct tls *t, char *to, size_t most)
{
    size_t n = 0;
    if (t->number % 4 == 2 && SSL_peek(t->ssl, to, most) <= 0)
        return 0;
    if (t->number % 2)
        return SSL_read_ex(t->ssl, to, most, &n) == 1 ? (long)n : 0;
    return SSL_read(t->ssl, to, most);
}

static bool tls_write(struct tls *t, const char *from, size_t n)
{
    size_t done = 0;
    if (t->number % 2)
        return SSL_write_ex(t->ssl, from, n, &done) == 1 && done == n;
    return SSL_write(t->ssl, from, n) == (int)n;
}

static void tls_close(struct tls *t, bool abandoned)
{
    if (!abandoned)
        SSL_shutdown(t->ssl);
    SSL_free(t->ssl);
    free(t);
}

static void sha256(const char *data, size_t n, unsigned char out[32])
{
    EVP_Digest(data, n, out, NULL, EVP_sha256(), NULL);
}

static const char *tls_version(void)
{
    return OpenSSL_version(OPENSSL_VERSION);
}
