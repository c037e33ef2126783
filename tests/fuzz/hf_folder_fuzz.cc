// A Hugging Face model folder: config.json, the index of the shards, two
// shards and the tokenizer's configuration, beside a good tokenizer.model.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "services/model/hf_checkpoint.h"
#include "services/model/model_summary.h"
#include "services/model/sentencepiece_model.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

namespace onegrid::fuzz {
namespace {

// An empty file is one that is not there.
void PutOrRemove(const std::string& name, absl::string_view bytes) {
  bytes.empty() ? Remove(name) : static_cast<void>(Put(name, bytes));
}

void Read(absl::string_view input) {
  static const std::string* const tokenizer =
      new std::string(model::SerializeModelProto(TinyVocabulary()));
  const std::vector<absl::string_view> files = Files(input, 5);
  Put("tokenizer.model", *tokenizer);
  Put("config.json", files[0]);
  PutOrRemove("model.safetensors.index.json", files[1]);
  Put("model.safetensors", files[2]);
  Put("b.safetensors", files[3]);
  PutOrRemove("tokenizer_config.json", files[4]);
  PromiseNamed(model::SummarizeModel(Folder(), 64).status(), Folder());
  const auto checkpoint = model::HfCheckpoint::Open(Folder());
  PromiseNamed(checkpoint.status(), Folder());
  if (!checkpoint.ok()) return;
  if ((*checkpoint)->IsPacked("model.embed_tokens")) {
    const int64_t rows = (*checkpoint)->config().vocab_size;
    PromiseNamed((*checkpoint)
                     ->PackedRows("model.embed_tokens", rows / 2, rows)
                     .status(),
                 Folder());
    return;
  }
  const auto embedding = (*checkpoint)->Values("model.embed_tokens.weight");
  Promise(embedding.ok(), embedding.status().ToString());
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  onegrid::fuzz::Read(onegrid::fuzz::View(data, size));
  return 0;
}
