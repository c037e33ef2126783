// tokenizer_config.json and chat_template.jinja beside a good tokenizer.model.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "services/model/hf_vocabulary.h"
#include "services/model/sentencepiece_model.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  static const std::string* const tokenizer =
      new std::string(model::SerializeModelProto(fuzz::TinyVocabulary()));
  constexpr int64_t kVocabSize = 400;
  const std::vector<absl::string_view> files =
      fuzz::Files(fuzz::View(data, size), 2);
  fuzz::Put("tokenizer.model", *tokenizer);
  fuzz::Put("tokenizer_config.json", files[0]);
  fuzz::Put("chat_template.jinja", files[1]);
  const auto read = model::ReadHfVocabulary(fuzz::Folder(), kVocabSize);
  fuzz::PromiseNamed(read.status(), fuzz::Folder());
  if (!read.ok()) return 0;
  fuzz::Promise(read->vocabulary.tokens.size() == kVocabSize,
                "not as many tokens as the embedding has rows");
  model::TokenizerMetadata(*read);
  return 0;
}
