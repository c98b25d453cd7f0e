/* A runtime that is a static binary: one connection for each request, events of up to half a megabyte. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH "/2018-06-01/runtime/invocation"
#define REST "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"

static char heard[1 << 20], sent[1 << 20], id[128];

static size_t ask(const char *request, size_t length) {
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(strchr(api, ':') + 1))};
    char host[64] = "";
    memcpy(host, api, strchr(api, ':') - api);
    inet_pton(AF_INET, host, &to.sin_addr);
    int line = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(line, (struct sockaddr *)&to, sizeof to) != 0) exit(3);
    for (size_t done = 0; done < length;) {
        ssize_t wrote = write(line, request + done, length - done);
        if (wrote <= 0) exit(4);
        done += wrote;
    }
    size_t have = 0;
    for (ssize_t got; (got = read(line, heard + have, sizeof heard - 1 - have)) > 0;) have += got;
    close(line);
    heard[have] = 0;
    return have;
}

int main(void) {
    for (;;) {
        const char *next = "GET " PATH "/next " REST "\r\n", *name = "Lambda-Runtime-Aws-Request-Id: ";
        size_t have = ask(next, strlen(next));
        char *event = strstr(heard, "\r\n\r\n") + 4;
        size_t length = have - (event - heard);
        sscanf(strstr(heard, name) + strlen(name), "%127[^\r]", id);
        fprintf(stderr, "C has %zu bytes\n", length);
        if (strcmp(event, "\"crash\"") == 0) abort();
        int head = sprintf(sent, "POST " PATH "/%s/response " REST "Content-Length: %zu\r\n\r\n{\"C\":", id, length + 6);
        memcpy(sent + head, event, length);
        sent[head + length] = '}';
        ask(sent, head + length + 1);
    }
}
