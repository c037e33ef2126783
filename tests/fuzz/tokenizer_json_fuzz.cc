// tokenizer.json: merges as they are, and as the scores of a SentencePiece
// model.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "services/model/merge_list.h"
#include "services/model/tokenizer.h"
#include "services/model/tokenizer_json.h"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

constexpr char kPath[] = "tokenizer.json";
constexpr int64_t kVocabSize = 400;
constexpr char kText[] = "ab  <bos>\n<0x41>\xe2\x96\x81 abc\xff";

void Encode(const model::Vocabulary& vocabulary) {
  const model::Tokenizer tokenizer(vocabulary);
  for (const bool parse_control : {false, true}) {
    const std::vector<int32_t> ids =
        tokenizer.Encode(kText, /*add_bos=*/false, parse_control);
    Promise(ids.size() <= sizeof(kText) * 3, "more tokens than bytes");
    for (const int32_t id : ids) {
      Promise(id >= 0 && id < tokenizer.vocab_size(), "an unknown id");
    }
  }
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  auto read = model::VocabularyFromTokenizerJson(fuzz::View(data, size),
                                                 fuzz::kPath, fuzz::kVocabSize);
  fuzz::PromiseNamed(read.status(), fuzz::kPath);
  if (!read.ok()) return 0;
  fuzz::Promise(read->tokens.size() <= fuzz::kVocabSize,
                "more tokens than the embedding has rows");
  fuzz::Promise(model::MergeLines(*read).size() == read->merges.size(),
                "merges are lost");
  fuzz::Encode(*read);
  const absl::Status scored = model::ScoreByMerges(fuzz::kPath, &*read);
  fuzz::PromiseNamed(scored, fuzz::kPath);
  if (scored.ok()) fuzz::Encode(*read);
  return 0;
}
