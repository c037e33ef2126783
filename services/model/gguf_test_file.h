#ifndef SERVICES_MODEL_GGUF_TEST_FILE_H_
#define SERVICES_MODEL_GGUF_TEST_FILE_H_

#include <string>
#include <utility>
#include <vector>

#include "services/model/gguf_value.h"
#include "services/model/gguf_writer.h"

namespace onegrid::model {

// Puts `bytes` into the test's folder and returns the path.
std::string WriteTestFile(const std::string& name, const std::string& bytes);
std::string ReadTestFile(const std::string& path);

// The metadata of a vocabulary: the 256 byte tokens behind these control and
// user-defined tokens and then `normal`, the first with the best score:
//   0 <pad>  1 <eos>  2 <bos>  3 <unk>  4 <start_of_turn>  5 <end_of_turn>
//   6 </s> (user-defined)  7 "\n\n" (user-defined)  8 "  " (user-defined)
//   9 U+2581  10 a  11 b  12 c  13 n  14 x  15 <  then `normal`, then bytes
std::vector<std::pair<std::string, GgufValue>> TinyTokenizerMetadata(
    const std::vector<std::string>& normal);
inline constexpr int kTinyFirstNormal = 16;

// Everything ConfigFromGguf wants, with F32 tensors of zeros: 2 layers, hidden
// 8, ff 12, 4 heads of 2, 2 kv heads, window 4, vocabulary of the tokenizer
// metadata without normal tokens.
GgufWriter TinyGemma3();

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GGUF_TEST_FILE_H_
