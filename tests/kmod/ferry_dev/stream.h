/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The device's own migration stream, little-endian.
 *
 *   ferry_stream_header, then records: ferry_stream_record + its data.
 *
 * A later PAGES record overwrites an earlier one. END closes the stream: its
 * data is the XXH64 (seed 0) of every byte before it, so a load knows that it
 * has everything, and exactly what the source sent.
 */
#ifndef FERRY_STREAM_H
#define FERRY_STREAM_H

#include <linux/types.h>

#define FERRY_STREAM_MAGIC 0x5645445952524546ULL	/* "FERRYDEV" */
#define FERRY_STREAM_VERSION 1

struct ferry_stream_header {
	__le64 magic;
	__le32 version;
	__le32 flags;		/* 0 */
	__le64 state_bytes;	/* the device's size: both ends must agree */
	__le64 stream_bytes;	/* all of the stream, or 0: begun in PRE_COPY, open-ended */
};

enum { FERRY_RECORD_PAGES = 1, FERRY_RECORD_END = 2 };

struct ferry_stream_record {
	__le32 tag;
	__le32 flags;		/* 0 */
	__le64 offset;		/* in the state, a multiple of 4096; END: 0 */
	__le64 bytes;		/* of data: whole pages, but for the state's tail; END: 8 */
};

#endif
