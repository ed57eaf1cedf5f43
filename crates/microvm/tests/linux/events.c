/* Pipes, counters, timers and sockets, waited for by epoll, poll and select. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

static int port;

static void *serve(void *arg) {
    int listener = *(int *)arg;
    int peer = accept(listener, 0, 0);
    char buffer[64];
    long count;
    while ((count = read(peer, buffer, sizeof buffer)) > 0) {
        for (long i = 0; i < count; i++) buffer[i] ^= 0x20;
        write(peer, buffer, count);
    }
    close(peer);
    return 0;
}

static void *later(void *arg) {
    usleep(3000);
    uint64_t one = 1;
    write(*(int *)arg, &one, 8);
    return 0;
}

int main(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7}, told[8];
    int epoll = epoll_create1(EPOLL_CLOEXEC), counter = eventfd(0, EFD_NONBLOCK), ends[2];
    pthread_t thread;
    uint64_t word;
    epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event);
    printf("nothing %d\n", epoll_wait(epoll, told, 8, 0));
    pthread_create(&thread, 0, later, &counter);
    printf("woken %d", epoll_wait(epoll, told, 8, -1));
    printf(" with %lu\n", told[0].data.u64);
    printf("level %d\n", epoll_wait(epoll, told, 8, 0));
    pthread_join(thread, 0);
    event.events = EPOLLIN | EPOLLET;
    epoll_ctl(epoll, EPOLL_CTL_MOD, counter, &event);
    printf("edge %d", epoll_wait(epoll, told, 8, 0));
    printf(" once %d", epoll_wait(epoll, told, 8, 0));
    word = 1;
    write(counter, &word, 8);
    printf(" again %d\n", epoll_wait(epoll, told, 8, 0));
    read(counter, &word, 8);
    printf("counted %lu", word);
    printf(" then %d\n", read(counter, &word, 8) == -1 && errno == EAGAIN);

    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec every = {.it_value = {.tv_nsec = 2000000}, .it_interval = {.tv_nsec = 2000000}};
    timerfd_settime(timer, 0, &every, 0);
    struct pollfd polled[2] = {{.fd = timer, .events = POLLIN}, {.fd = -1}};
    printf("timer %d", poll(polled, 2, 1000));
    usleep(5000);
    read(timer, &word, 8);
    printf(" more than one %d\n", word >= 2);

    pipe(ends);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    struct timeval little = {.tv_usec = 1000};
    printf("select %d", select(ends[0] + 1, &set, 0, 0, &little));
    write(ends[1], "abc", 3);
    FD_SET(ends[0], &set);
    printf(" %d", select(ends[0] + 1, &set, 0, 0, &little));
    int readable;
    ioctl(ends[0], FIONREAD, &readable);
    printf(" readable %d\n", readable);
    close(ends[1]);
    char buffer[64];
    long first = read(ends[0], buffer, 64);
    printf("read %ld then %ld\n", first, read(ends[0], buffer, 64));

    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    bind(listener, (void *)&address, sizeof address);
    listen(listener, 4);
    getsockname(listener, (void *)&address, &length);
    pthread_create(&thread, 0, serve, &listener);
    printf("connect %d\n", connect(client, (void *)&address, sizeof address));
    write(client, "Hello", 5);
    long got = read(client, buffer, sizeof buffer);
    printf("echo %.*s\n", (int)got, buffer);
    shutdown(client, SHUT_WR);
    printf("end %ld\n", read(client, buffer, sizeof buffer));
    pthread_join(thread, 0);
    close(client);
    client = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_port = htons(9);
    int refused = connect(client, (void *)&address, sizeof address);
    printf("refused %d\n", refused == -1 && errno == ECONNREFUSED);
    inet_pton(AF_INET, "93.184.216.34", &address.sin_addr);
    int denied = connect(client, (void *)&address, sizeof address);
    printf("denied %d\n", denied == -1 && errno == EACCES);

    int pair[2];
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);
    send(pair[0], "one", 3, 0);
    send(pair[0], "second", 6, 0);
    got = recv(pair[1], buffer, 64, 0);
    printf("messages %ld", got);
    printf(" %zd\n", recv(pair[1], buffer, 64, MSG_DONTWAIT));
    printf("none %d\n", recv(pair[1], buffer, 64, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    return 0;
}
