// Guesses how a sequence goes on from what it has said before.
//
// Where a model copies (edits, summaries, code, lists), the tokens after the
// last few are often those that followed the same few earlier. Checking several
// guesses in one step costs little more than one token where reading the
// weights is what a step costs.
//
// Source: prompt lookup decoding (Saxena 2023), the n-gram speculation of vLLM
// and llama.cpp's lookup.
#ifndef SERVICES_INFERENCE_PROMPT_LOOKUP_H_
#define SERVICES_INFERENCE_PROMPT_LOOKUP_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace onegrid::inference {

// The tokens, at most `most`, that followed the earlier occurrence of the
// sequence's end with which it has most tokens in common, at least
// kShortestMatch; of equals the latest. Empty: there is none.
// O(tokens), some microseconds for 8,192.
std::vector<int32_t> LookUpContinuation(absl::Span<const int32_t> tokens,
                                        int most);

inline constexpr int kShortestMatch = 2;
// Longer matches count as this long.
inline constexpr int kLongestMatch = 8;

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_PROMPT_LOOKUP_H_
