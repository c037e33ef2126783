// A conversation: turns apart by the mark of files, the role in the first byte.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "services/model/chat_template.h"
#include "services/model/chat_turns.h"
#include "services/model/utf8.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

namespace onegrid::fuzz {
namespace {

constexpr size_t kTurnsMax = 8;

std::vector<model::Turn> Turns(absl::string_view input) {
  std::vector<model::Turn> turns;
  for (const absl::string_view text : Files(input, kTurnsMax)) {
    if (text.empty()) break;
    model::Turn turn;
    turn.role = static_cast<model::Role>(static_cast<uint8_t>(text[0]) % 3);
    turn.text = std::string(text.substr(1));
    // What reads conversations lets no other text through.
    if (!model::IsValidUtf8(turn.text)) break;
    turns.push_back(turn);
  }
  return turns;
}

void Encode(const std::vector<model::Turn>& turns) {
  static const auto* const chat =
      new model::ChatTemplate(*model::ChatTemplate::Create(TinyTokenizer()));
  const model::ChatTokens tokens = chat->Encode(turns, /*open_answer=*/true);
  const auto count = [&](int32_t id) {
    return std::count(tokens.tokens.begin(), tokens.tokens.end(), id);
  };
  const auto said = static_cast<int64_t>(turns.size()) -
                    (turns[0].role == model::Role::kSystem ? 1 : 0);
  // No text of a turn opens or ends one: tokens 4 and 5 do.
  Promise(count(4) == said + 1, "a turn that nobody has opened");
  Promise(count(5) == said, "a turn that nobody has ended");
  for (const model::AnswerTokens& answer : tokens.answers) {
    Promise(0 <= answer.begin && answer.begin < answer.end &&
                answer.end <= static_cast<int64_t>(tokens.tokens.size()),
            "an answer outside of the tokens");
  }
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto turns = onegrid::fuzz::Turns(onegrid::fuzz::View(data, size));
  if (onegrid::model::RenderProblem(turns).empty()) {
    onegrid::fuzz::Encode(turns);
  }
  return 0;
}
