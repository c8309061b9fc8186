/*
 * Both hosts' VMMs in one process, whose channel has lanes: it carries whole
 * frames, which overtake each other. A frame that is lost, comes twice, or is
 * none ends both sessions.
 */
#include "drive.h"

#include <stdlib.h>
#include <unistd.h>

#define LANES 16 /* Frames under way, of which any may be the next to arrive. */
#define HOST_COUNT 2

struct lane {
    uint8_t *bytes;
    size_t count;
};

/* One direction. */
struct road {
    vferry_channel *from, *to;
    struct lane lanes[LANES];
    size_t under_way;
    uint8_t *frame; /* the one that is being pulled */
    size_t have;
    int ended, closed;
    unsigned carried;
    unsigned lose, twice, spoil; /* this one, counted from 1; 0: none */
    int refused; /* what a push_frame answered that was not VFERRY_OK */
};

static uint32_t seed;

static uint32_t any(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
}

static void arrive(struct road *road, const uint8_t *bytes, size_t count)
{
    int status = vferry_channel_push_frame(road->to, bytes, count);
    if (status != VFERRY_OK && status != VFERRY_ERR_ENDED)
        road->refused = status;
}

/* Carries what there is. 1 if anything moved. */
static int carry(struct road *road)
{
    int status, moved = 0;
    while (!road->ended && road->under_way < LANES) {
        size_t had = road->have;
        status = vferry_channel_pull_frame(road->from, road->frame, VFERRY_FRAME_BYTES_MAX, &road->have);
        moved |= road->have != had;
        if (status == VFERRY_ERR_ENDED)
            road->ended = 1;
        if (status == VFERRY_ERR_EMPTY || status == VFERRY_ERR_ENDED)
            break;
        MUST(status);
        road->carried++;
        if (road->carried == road->spoil)
            road->frame[0] ^= 1;
        if (road->carried != road->lose) {
            struct lane *lane = &road->lanes[road->under_way++];
            lane->count = road->have;
            lane->bytes = malloc(lane->count);
            CHECK(lane->bytes != NULL);
            memcpy(lane->bytes, road->frame, lane->count);
        }
        road->have = 0;
        moved = 1;
    }
    /* Whoever is faster arrives; when nothing more comes, all do. */
    while (road->under_way && (road->under_way > LANES / 2 || !moved)) {
        struct lane *lane = &road->lanes[any((uint32_t)road->under_way)];
        arrive(road, lane->bytes, lane->count);
        if (road->carried >= road->twice && road->twice) {
            road->twice = 0;
            arrive(road, lane->bytes, lane->count);
        }
        free(lane->bytes);
        *lane = road->lanes[--road->under_way];
        if (road->under_way <= LANES / 2)
            break;
    }
    status = vferry_channel_flush(road->to);
    CHECK(status == VFERRY_OK || status == VFERRY_ERR_FULL || status == VFERRY_ERR_ENDED ||
          (road->refused && status == VFERRY_ERR_PEER_PROTOCOL) || road->refused);
    if (road->ended && !road->under_way && !road->closed) {
        MUST(vferry_channel_close(road->to));
        road->closed = 1;
        return 1;
    }
    return moved || road->under_way;
}

struct world {
    struct double_device leaving, coming;
    vferry_channel *here, *there;
    struct road roads[HOST_COUNT];
    struct drive source, target;
};

static void start(struct world *world, int resets)
{
    struct double_plan plan = {3000000, 60001, 1600003, resets};
    vferry_options *options = test_options();
    int here, there;
    memset(world, 0, sizeof *world);
    double_source(&world->leaving, "net0", plan);
    double_target(&world->coming, "net0");
    MUST(vferry_device_set_on_reset(world->leaving.ferry, VFERRY_ON_RESET_RESTART, 1,
                                    VFERRY_ON_RESET_STOP_COPY));
    MUST(vferry_channel_new(&world->here, &here));
    MUST(vferry_channel_new(&world->there, &there));
    MUST(vferry_channel_hold_at_most(world->there, 40 << 20));
    world->roads[0] = (struct road){.from = world->here, .to = world->there};
    world->roads[1] = (struct road){.from = world->there, .to = world->here};
    for (int i = 0; i < HOST_COUNT; i++)
        CHECK((world->roads[i].frame = malloc(VFERRY_FRAME_BYTES_MAX)) != NULL);
    world->source = (struct drive){.devices = &world->leaving, .count = 1, .stop_when_ready = 1};
    world->target = (struct drive){.devices = &world->coming, .count = 1};
    MUST(vferry_options_set_peer_silence_ms(options, 2000));
    MUST(vferry_session_source(options, &world->leaving.ferry, 1, &here, 1, &world->source.session));
    MUST(vferry_session_target(options, &world->coming.ferry, 1, &there, 1, &world->target.session));
    vferry_options_free(&options);
}

/* Turns until both sessions have ended. */
static void run(struct world *world)
{
    int ended = 0;
    while (ended != 3) {
        struct pollfd fds[8 + 2 * HOST_COUNT];
        size_t count = drive_fds(&world->source, fds);
        int moved = 0;
        count += drive_fds(&world->target, fds + count);
        for (int i = 0; i < HOST_COUNT; i++) {
            struct road *road = &world->roads[i];
            moved |= carry(road);
            if (road->ended)
                continue;
            fds[count].events = POLLIN;
            MUST(vferry_channel_fd(road->from, &fds[count++].fd));
            if (vferry_channel_flush(road->to) == VFERRY_ERR_FULL) {
                fds[count].events = POLLOUT;
                MUST(vferry_channel_fd(road->to, &fds[count++].fd));
            }
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
    vferry_channel_free(&world->here);
    vferry_channel_free(&world->there);
    for (int i = 0; i < HOST_COUNT; i++) {
        free(world->roads[i].frame);
        while (world->roads[i].under_way)
            free(world->roads[i].lanes[--world->roads[i].under_way].bytes);
    }
    double_free(&world->leaving);
    double_free(&world->coming);
}

static void moves(int resets)
{
    static struct world world;
    size_t gave, took;
    start(&world, resets);
    run(&world);
    CHECK(world.source.finished.ending == VFERRY_ENDING_HANDED_OVER);
    CHECK(world.target.finished.ending == VFERRY_ENDING_RUNNING);
    CHECK(double_hash(&world.leaving, &gave) == double_hash(&world.coming, &took));
    CHECK(gave == took && gave > 0 && world.source.restarts == resets);
    CHECK(!world.roads[0].refused && !world.roads[1].refused);
    stop(&world);
}

/* The number of a frame to the target that meets with something. */
static void breaks(unsigned lose, unsigned twice, unsigned spoil)
{
    static struct world world;
    start(&world, 0);
    world.roads[0].lose = lose;
    world.roads[0].twice = twice;
    world.roads[0].spoil = spoil;
    run(&world);
    CHECK(world.source.finished.ending == VFERRY_ENDING_RETURNED);
    CHECK(world.target.finished.ending == VFERRY_ENDING_BLANK ||
          world.target.finished.ending == VFERRY_ENDING_NOT_BLANK); /* Its VMM resets it. */
    CHECK(world.roads[0].refused == (lose ? 0 : VFERRY_ERR_PEER_PROTOCOL));
    stop(&world);
}

/* What the calls answer that ask for what cannot be. */
static void misuse(void)
{
    vferry_channel *channel = NULL;
    uint8_t byte = 0, frame[64] = {0};
    size_t have = 0, count;
    int fd, other;
    MUST(vferry_channel_new(&channel, &fd));
    CHECK(vferry_channel_pull_frame(NULL, frame, sizeof frame, &have) == VFERRY_ERR_NULL);
    CHECK(vferry_channel_pull_frame(channel, NULL, sizeof frame, &have) == VFERRY_ERR_NULL);
    CHECK(vferry_channel_pull_frame(channel, frame, sizeof frame, NULL) == VFERRY_ERR_NULL);
    CHECK(vferry_channel_pull_frame(channel, frame, 63, &have) == VFERRY_ERR_BUFFER_TOO_SMALL);
    CHECK(vferry_channel_pull_frame(channel, frame, sizeof frame, &have) == VFERRY_ERR_EMPTY);
    CHECK(have == 0);
    have = 65;
    CHECK(vferry_channel_pull_frame(channel, frame, sizeof frame, &have) == VFERRY_ERR_RANGE);
    CHECK(vferry_channel_push_frame(NULL, frame, sizeof frame) == VFERRY_ERR_NULL);
    CHECK(vferry_channel_push_frame(channel, NULL, sizeof frame) == VFERRY_ERR_NULL);
    CHECK(vferry_channel_flush(NULL) == VFERRY_ERR_NULL);
    CHECK(vferry_channel_flush(channel) == VFERRY_OK);
    CHECK(vferry_channel_hold_at_most(NULL, 40 << 20) == VFERRY_ERR_NULL);
    CHECK(vferry_channel_hold_at_most(channel, 1 << 20) == VFERRY_ERR_RANGE);
    CHECK(vferry_channel_hold_at_most(channel, (size_t)1 << 40) == VFERRY_ERR_RANGE);
    CHECK(vferry_channel_held_bytes(NULL) == 0 && vferry_channel_held_bytes(channel) == 0);
    MUST(vferry_channel_push(channel, &byte, 1, &count));
    CHECK(vferry_channel_push_frame(channel, frame, sizeof frame) == VFERRY_ERR_MIXED);
    vferry_channel_free(&channel);
    close(fd);
    MUST(vferry_channel_new(&channel, &fd));
    CHECK(vferry_channel_push_frame(channel, frame, 63) == VFERRY_ERR_PEER_PROTOCOL);
    CHECK(vferry_channel_push_frame(channel, frame, sizeof frame) == VFERRY_ERR_PEER_PROTOCOL);
    CHECK(vferry_channel_push(channel, &byte, 1, &count) == VFERRY_ERR_MIXED);
    CHECK(vferry_channel_fd(channel, &other) == VFERRY_OK);
    vferry_channel_free(&channel);
    close(fd);
}

int main(void)
{
    int fds = open_fds();
    misuse();
    for (seed = 1; seed < 4; seed++)
        moves(0);
    moves(1); /* restarted in PRE_COPY */
    moves(2); /* the second time its whole state goes from STOP_COPY */
    breaks(9, 0, 0);
    breaks(0, 9, 0);
    breaks(0, 0, 9);
    wait_for_fds(fds);
    return 0;
}
