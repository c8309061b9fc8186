/*
 * Both hosts' VMMs in one process, which carries the sessions' bytes itself:
 * it moves devices, restarts them, is cancelled from another thread, and cuts
 * a channel.
 */
#include "drive.h"

#include <pthread.h>
#include <stdlib.h>

#define STREAMS 2
#define SEGMENT 1237 /* What one turn carries: nothing that a frame's size divides by. */

/* One direction of a channel: bytes that were pulled and not all pushed yet. */
struct pipe {
    vferry_channel *from, *to;
    uint8_t bytes[SEGMENT];
    size_t count, pushed;
    int closed;
};

/* Carries what there is. 1 if anything moved. */
static int carry(struct pipe *pipe)
{
    size_t count;
    int status;
    if (pipe->closed)
        return 0;
    if (pipe->pushed == pipe->count) {
        status = vferry_channel_pull(pipe->from, pipe->bytes, sizeof pipe->bytes, &count);
        if (status == VFERRY_ERR_EMPTY)
            return 0;
        if (status == VFERRY_ERR_ENDED) {
            MUST(vferry_channel_close(pipe->to));
            pipe->closed = 1;
            return 1;
        }
        MUST(status);
        CHECK(count > 0 && count <= sizeof pipe->bytes);
        pipe->count = count;
        pipe->pushed = 0;
    }
    status = vferry_channel_push(pipe->to, pipe->bytes + pipe->pushed, pipe->count - pipe->pushed, &count);
    if (status == VFERRY_ERR_FULL)
        return 0;
    if (status == VFERRY_ERR_ENDED) { /* That session is over: the rest is for nobody. */
        pipe->pushed = pipe->count;
        return 1;
    }
    MUST(status);
    pipe->pushed += count;
    return 1;
}

struct world {
    struct double_device leaving, coming;
    vferry_channel *here[STREAMS], *there[STREAMS];
    struct pipe pipes[2 * STREAMS];
    struct drive source, target;
};

static void start(struct world *world, int resets)
{
    struct double_plan plan = {1500000, 30001, 800003, resets};
    vferry_options *options = test_options();
    int here[STREAMS], there[STREAMS];
    memset(world, 0, sizeof *world);
    double_source(&world->leaving, "net0", plan);
    double_target(&world->coming, "net0");
    MUST(vferry_device_set_on_reset(world->leaving.ferry, VFERRY_ON_RESET_RESTART, 1,
                                    VFERRY_ON_RESET_STOP_COPY));
    for (int i = 0; i < STREAMS; i++) {
        MUST(vferry_channel_new(&world->here[i], &here[i]));
        MUST(vferry_channel_new(&world->there[i], &there[i]));
        world->pipes[2 * i].from = world->pipes[2 * i + 1].to = world->here[i];
        world->pipes[2 * i].to = world->pipes[2 * i + 1].from = world->there[i];
    }
    world->source = (struct drive){.devices = &world->leaving, .count = 1, .stop_when_ready = 1};
    world->target = (struct drive){.devices = &world->coming, .count = 1};
    MUST(vferry_session_source(options, &world->leaving.ferry, 1, here, STREAMS, &world->source.session));
    MUST(vferry_session_target(options, &world->coming.ferry, 1, there, STREAMS, &world->target.session));
    vferry_options_free(&options);
}

/* Turns until both sessions have ended. */
static void run(struct world *world)
{
    int ended = 0;
    while (ended != 3) {
        struct pollfd fds[4 + 4 * STREAMS];
        size_t count = drive_fds(&world->source, fds);
        int moved = 0;
        count += drive_fds(&world->target, fds + count);
        for (int i = 0; i < 2 * STREAMS; i++) {
            struct pipe *pipe = &world->pipes[i];
            moved |= carry(pipe);
            if (pipe->closed)
                continue;
            if (pipe->pushed < pipe->count)
                fds[count].events = POLLOUT;
            else
                fds[count].events = POLLIN;
            MUST(vferry_channel_fd(pipe->pushed < pipe->count ? pipe->to : pipe->from, &fds[count].fd));
            count++;
        }
        ended |= drive_turn(&world->source) | drive_turn(&world->target) << 1;
        if (!moved && ended != 3)
            CHECK(poll(fds, count, 60000) > 0);
    }
}

static void stop(struct world *world)
{
    vferry_session_free(&world->source.session);
    vferry_session_free(&world->target.session);
    for (int i = 0; i < STREAMS; i++) {
        vferry_channel_free(&world->here[i]);
        vferry_channel_free(&world->there[i]);
    }
    double_free(&world->leaving);
    double_free(&world->coming);
}

static void moves(int resets, int restarts)
{
    static struct world world;
    size_t gave, took;
    start(&world, resets);
    run(&world);
    CHECK(world.source.finished.ending == VFERRY_ENDING_HANDED_OVER);
    CHECK(world.target.finished.ending == VFERRY_ENDING_RUNNING);
    CHECK(double_hash(&world.leaving, &gave) == double_hash(&world.coming, &took));
    CHECK(gave == took && gave > 0 && world.source.restarts == restarts);
    stop(&world);
}

static void *cancel(void *session)
{
    MUST(vferry_session_cancel(session));
    return NULL;
}

static void is_cancelled(void)
{
    static struct world world;
    pthread_t thread;
    start(&world, 0);
    world.source.stop_when_ready = 0;
    CHECK(pthread_create(&thread, NULL, cancel, world.source.session) == 0);
    run(&world);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(world.source.finished.ending == VFERRY_ENDING_RETURNED);
    CHECK(world.source.finished.cause == VFERRY_CAUSE_CANCELLED);
    CHECK(world.target.finished.ending == VFERRY_ENDING_BLANK ||
          world.target.finished.ending == VFERRY_ENDING_NOT_BLANK);
    CHECK(vferry_session_switchover(world.source.session) == VFERRY_ERR_ENDED);
    CHECK(vferry_session_cancel(world.source.session) == VFERRY_OK);
    stop(&world);
}

/* A channel of the VMM breaks: both sessions hear of it and end. */
static void breaks(void)
{
    static struct world world;
    start(&world, 0);
    world.source.stop_when_ready = 0;
    while (world.source.estimates == 0 || world.coming.state != VFERRY_STATE_RESUMING) {
        for (int i = 0; i < 2 * STREAMS; i++)
            carry(&world.pipes[i]);
        drive_turn(&world.source);
        drive_turn(&world.target);
    }
    MUST(vferry_channel_close(world.here[0]));
    MUST(vferry_channel_close(world.there[0]));
    world.pipes[0].closed = world.pipes[1].closed = 1;
    run(&world);
    CHECK(world.source.finished.ending == VFERRY_ENDING_RETURNED);
    CHECK(world.source.finished.cause == VFERRY_CAUSE_NETWORK ||
          world.source.finished.cause == VFERRY_CAUSE_PEER_ABORT);
    CHECK(world.target.finished.ending == VFERRY_ENDING_NOT_BLANK); /* Its VMM resets it. */
    stop(&world);
}

int main(void)
{
    int fds = open_fds();
    moves(0, 0);
    moves(1, 1); /* restarted in PRE_COPY */
    moves(2, 2); /* the second time its whole state goes from STOP_COPY */
    is_cancelled();
    breaks();
    wait_for_fds(fds);
    return 0;
}
