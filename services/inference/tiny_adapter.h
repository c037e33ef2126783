// A LoRA adapter of random weights for a tiny model.
#ifndef SERVICES_INFERENCE_TINY_ADAPTER_H_
#define SERVICES_INFERENCE_TINY_ADAPTER_H_

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "services/model/gemma_config.h"

namespace onegrid::inference {

struct TinyAdapterOptions {
  uint64_t seed = 1;
  int64_t rank = 4;
  // The kinds of linears that it has: "q_proj", ...
  std::set<std::string> kinds = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                 "gate_proj", "up_proj", "down_proj"};
};

// Writes the folder as PEFT does; scale is 2. Large enough that greedy output
// changes. Same options, same bytes.
absl::Status WriteTinyAdapter(const std::string& folder,
                              const model::GemmaConfig& config,
                              const TinyAdapterOptions& options = {});

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_TINY_ADAPTER_H_
