// The small model that fuzz functions read files against, and that their seeds
// are of.
#ifndef TESTS_FUZZ_TINY_FILES_H_
#define TESTS_FUZZ_TINY_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "services/model/gemma_config.h"
#include "services/model/sentencepiece_model.h"
#include "services/model/tokenizer.h"

namespace onegrid::fuzz {

// One layer, hidden 32, ff 32, one head of 32, the tokens of TinyVocabulary. An
// attention that every grid of 32 can hold.
model::GemmaConfig TinyConfig();

// The tokens of gguf_test_file.h with some words.
model::Vocabulary TinyVocabulary();

// A tokenizer of them; lives as long as the process.
const model::Tokenizer& TinyTokenizer();

// A GGUF file of TinyConfig: Q4_0 linears, Q8_0 embedding, F32 norms.
std::string TinyGguf();

// A GGUF file with a tensor of each type and a metadata value of each type.
std::string EveryTypeGguf();

// Two shards of one model.
std::vector<std::string> TinyShards();

// model.safetensors of TinyConfig in BF16; packed: as compressed-tensors.
std::string TinySafetensors(bool packed);
std::string TinyConfigJson(bool packed);
// The same in Google's mobile layout: linears of 4 bits, the embedding of 8, a
// head of its own of 2.
std::string TinyMobileSafetensors();
std::string TinyMobileConfigJson();

// See exporter::FoldedCheckpoint; all but the norms.
std::string TinyFolded();

// See model::Adapter: of one rank, on q_proj.
std::string TinyAdapter(int64_t rank);
// The same of rank 2 as a GGUF, A in Q8_0 and B in F16.
std::string TinyAdapterGguf();

// See evaluator::ProbeFile: two tokens.
std::string TinyProbe();

}  // namespace onegrid::fuzz

#endif  // TESTS_FUZZ_TINY_FILES_H_
