/* What the C servers of the matrix share: requests with a path that ends in /NUMBER/SIZE, and the answers to them. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A listener on a free port of the loopback interface; the port is printed. */
static int listen_and_print(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) || listen(fd, 512) || getsockname(fd, (struct sockaddr *)&a, &n)) {
        perror("listen");
        exit(1);
    }
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

/* All of the head and the body are there. */
static int whole_request(const char *data, size_t have)
{
    const char *end = strstr(data, "\r\n\r\n");
    if (!end)
        return 0;
    const char *field = strcasestr(data, "\r\nContent-Length:");
    size_t length = field && field < end ? strtoul(field + 17, NULL, 10) : 0;
    return have >= (size_t)(end + 4 - data) + length;
}

/* The answer to a request; to be freed. */
static char *make_answer(const char *request, size_t *length)
{
    char path[256] = "", unit[32], name[32] = "";
    unsigned number = 0, size = 0;
    sscanf(request, "%*s %255s", path);
    char *last = strrchr(path, '/');
    if (last) {
        size = strtoul(last + 1, NULL, 10);
        *last = 0;
        last = strrchr(path, '/');
        number = last ? strtoul(last + 1, NULL, 10) : 0;
    }
    FILE *file = fopen("/proc/self/comm", "r");
    if (file) {
        if (fscanf(file, "%31s", name) != 1)
            name[0] = 0;
        fclose(file);
    }
    char *answer = malloc(512 + size);
    if (!answer)
        exit(2);
    size_t at = snprintf(
        answer, 512, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %u\r\nX-Process: %d %s\r\n\r\n",
        size, getpid(), name);
    size_t n = snprintf(unit, sizeof(unit), "%u.", number);
    for (unsigned i = 0; i < size; i++)
        answer[at + i] = unit[i % n];
    *length = at + size;
    return answer;
}
