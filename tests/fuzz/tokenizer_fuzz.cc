// Text of any bytes, to tokens and back.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "services/model/sentencepiece_model.h"
#include "services/model/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  const model::Tokenizer& tokenizer = fuzz::TinyTokenizer();
  const std::string text(fuzz::View(data, size));
  for (const bool parse_control : {false, true}) {
    const std::vector<int32_t> ids =
        tokenizer.Encode(text, /*add_bos=*/false, parse_control);
    fuzz::Promise(ids.size() <= size * 3, "more tokens than bytes");
    for (const int32_t id : ids) {
      fuzz::Promise(id >= 0 && id < tokenizer.vocab_size(), "an unknown id");
    }
    const std::string back = tokenizer.Decode(ids);
    if (parse_control) continue;
    // A token writes a space as U+2581, so the two are one to it.
    fuzz::Promise(model::UnescapeSpaces(back) == model::UnescapeSpaces(text),
                  "a text changes in the tokenizer");
  }
  return 0;
}
