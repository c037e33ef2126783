// Encodes floats straight into tiles of int4.
#ifndef KERNELS_CPU_INT4_ENCODER_H_
#define KERNELS_CPU_INT4_ENCODER_H_

#include <cstdint>

namespace onegrid::cpu {

// values [32][16], a group of 16 rows, into their place in a tile, as
// Int4Layout says; left in them is what the codes leave out. squares_taken[r]
// and squares_left[r] += the squares of both parts of row r. Of a few scales
// that which leaves least is taken. Values that are no numbers give any codes.
void EncodeInt4Group(float* values, uint8_t* place, float* squares_taken,
                     float* squares_left);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_INT4_ENCODER_H_
