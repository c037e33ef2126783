#include "services/inference/grammar/output_grammar.h"

#include <dlpack/dlpack.h>
#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <list>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/inference/grammar/grammar_text.h"
#include "services/inference/grammar/regex_parser.h"
#include "services/inference/grammar/schema_grammar.h"
#include "services/model/utf8.h"

namespace onegrid::grammar {
namespace {

// Of the grammars that are kept, counted when one is added.
constexpr size_t kCacheBytes = size_t{64} << 20;
constexpr size_t kCacheGrammars = 256;
// The library counts masks and expressions, not what it keeps for itself: 10 to
// 100 bytes were seen for each of a large grammar's text.
constexpr size_t kBytesOfTextByte = 64;

constexpr uint32_t kAll = ~uint32_t{0};

absl::StatusOr<std::string> ChoicesGrammar(const v1::Choices& choices) {
  std::vector<std::string> texts;
  size_t bytes = 0;
  for (const std::string& text : choices.texts()) {
    if (text.empty()) return NotSupported("an empty choice");
    if (!model::IsValidUtf8(text)) {
      return NotSupported("a choice that is not UTF-8");
    }
    bytes += text.size();
    texts.push_back(Literal(text));
  }
  if (texts.empty()) return NotSupported("no choices");
  if (texts.size() > kMaxChoices || bytes > kMaxChoiceBytes) {
    return NotSupported(absl::StrCat(texts.size(), " choices of ", bytes,
                                     " bytes, at most ", kMaxChoices, " of ",
                                     kMaxChoiceBytes));
  }
  return absl::StrCat("root ::= ", AnyOf(texts), "\n");
}

absl::StatusOr<std::string> RegexGrammar(const std::string& pattern) {
  ASSIGN_OR_RETURN(const TextNode texts, ParseRegex(pattern));
  GrammarRules rules;
  ASSIGN_OR_RETURN(const std::string expression,
                   TextExpression(texts, TextPlace::kWhole, rules));
  return rules.Text(expression);
}

// What a token adds to the text; empty: it is never part of an output. Marks of
// thoughts and calls are text in vocabularies, but not to who reads the output.
std::string OutputPiece(const model::Tokenizer& tokenizer, int32_t id) {
  const model::VocabularyToken& token = tokenizer.vocabulary().tokens[id];
  switch (token.type) {
    case model::TokenType::kNormal:
    case model::TokenType::kByte:
      return tokenizer.Piece(id);
    case model::TokenType::kUserDefined:
      return absl::StartsWith(token.text, "<|") ||
                     absl::EndsWith(token.text, "|>")
                 ? ""
                 : tokenizer.Piece(id);
    default:
      return "";
  }
}

xgrammar::TokenizerInfo DescribeTokens(const model::Tokenizer& tokenizer) {
  std::vector<std::string> pieces;
  std::vector<int32_t> ends;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    pieces.push_back(OutputPiece(tokenizer, id));
    if (tokenizer.IsEndOfGeneration(id)) ends.push_back(id);
  }
  for (const int32_t id : tokenizer.vocabulary().suppressed) pieces[id].clear();
  return xgrammar::TokenizerInfo(pieces, xgrammar::VocabType::RAW,
                                 static_cast<int>(pieces.size()), ends);
}

absl::Status Failed(absl::string_view what) {
  return common::MakeError(
      absl::StatusCode::kInternal, "STRUCTURE_FAILED",
      absl::StrCat("the output cannot be held to its structure: ", what));
}

}  // namespace

class OutputGrammar {
 public:
  explicit OutputGrammar(xgrammar::CompiledGrammar grammar)
      : compiled(std::move(grammar)) {}

  const xgrammar::CompiledGrammar compiled;
};

// A grammar's masks are made when an output first needs them and are kept with
// the grammar, so that compiling takes milliseconds whatever the structure.
struct OutputGrammars::Compiler {
  explicit Compiler(const model::Tokenizer& tokenizer)
      : compiler(DescribeTokens(tokenizer), /*max_threads=*/1,
                 /*cache_enabled=*/false, /*max_memory_bytes=*/-1,
                 /*enable_dynamic_compilation=*/true) {}

  struct Kept {
    std::string text;
    std::shared_ptr<const OutputGrammar> grammar;
  };

  std::shared_ptr<const OutputGrammar> Find(const std::string& text) {
    const auto found =
        std::find_if(kept.begin(), kept.end(),
                     [&](const Kept& one) { return one.text == text; });
    if (found == kept.end()) return nullptr;
    kept.splice(kept.begin(), kept, found);
    Trim();
    return found->grammar;
  }

  void Keep(std::string text, std::shared_ptr<const OutputGrammar> grammar) {
    kept.push_front({std::move(text), std::move(grammar)});
    Trim();
  }

  // Grammars grow while outputs are held to them. The first one stays.
  void Trim() {
    size_t bytes = 0;
    size_t count = 0;
    auto one = kept.begin();
    for (; one != kept.end() && count < kCacheGrammars; ++one, ++count) {
      bytes += one->text.size() * kBytesOfTextByte +
               one->grammar->compiled.MemorySizeBytes();
      if (bytes > kCacheBytes && count > 0) break;
    }
    kept.erase(one, kept.end());
  }

  xgrammar::GrammarCompiler compiler;
  std::list<Kept> kept;  // what was used last comes first
};

absl::StatusOr<std::string> GrammarOf(const v1::Structure& structure) {
  switch (structure.kind_case()) {
    case v1::Structure::kJsonSchema:
      return SchemaGrammar(structure.json_schema());
    case v1::Structure::kJsonObject:
      if (!structure.json_object()) break;
      return JsonObjectGrammar();
    case v1::Structure::kRegex:
      return RegexGrammar(structure.regex());
    case v1::Structure::kChoices:
      return ChoicesGrammar(structure.choices());
    case v1::Structure::KIND_NOT_SET:
      break;
  }
  return NotSupported("a structure of no kind");
}

OutputGrammars::OutputGrammars(const model::Tokenizer& tokenizer)
    : tokenizer_(tokenizer) {}

OutputGrammars::~OutputGrammars() = default;

absl::StatusOr<std::shared_ptr<const OutputGrammar>> OutputGrammars::Compile(
    const v1::Structure& structure) {
  ASSIGN_OR_RETURN(const std::string grammar, GrammarOf(structure));
  absl::MutexLock lock(&mu_);
  try {
    if (compiler_ == nullptr)
      compiler_ = std::make_unique<Compiler>(tokenizer_);
    std::shared_ptr<const OutputGrammar> known = compiler_->Find(grammar);
    if (known != nullptr) return known;
    auto compiled = std::make_shared<const OutputGrammar>(
        compiler_->compiler.CompileGrammar(grammar));
    compiler_->Keep(grammar, compiled);
    return std::shared_ptr<const OutputGrammar>(std::move(compiled));
  } catch (const std::exception&) {
    // Its words are about the grammar, not about the structure.
    return NotSupported("the structure takes a grammar that is too deep");
  }
}

struct OutputMatcher::State {
  State(std::shared_ptr<const OutputGrammar> from, bool ends_allowed)
      : grammar(std::move(from)),
        may_end(ends_allowed),
        matcher(grammar->compiled),
        ends(grammar->compiled.GetTokenizerInfo().GetStopTokenIds()),
        words(static_cast<size_t>(xgrammar::GetBitmaskSize(
            grammar->compiled.GetTokenizerInfo().GetVocabSize()))) {}

  bool Has(int32_t token) const { return words[token / 32] >> token % 32 & 1; }
  void Clear(int32_t token) { words[token / 32] &= ~(1u << token % 32); }

  const std::shared_ptr<const OutputGrammar> grammar;
  const bool may_end;
  xgrammar::GrammarMatcher matcher;
  const std::vector<int32_t> ends;
  std::vector<uint32_t> words;  // a bit for each token that may be next
  bool filled = false;
  bool ended = false;
};

OutputMatcher::OutputMatcher(std::shared_ptr<const OutputGrammar> grammar,
                             bool may_end)
    : state_(std::make_unique<State>(std::move(grammar), may_end)) {}

OutputMatcher::~OutputMatcher() = default;

absl::Status OutputMatcher::Fill() {
  State& state = *state_;
  if (state.filled) return absl::OkStatus();
  auto shape = static_cast<int64_t>(state.words.size());
  DLTensor tensor = {state.words.data(),
                     {kDLCPU, 0},
                     1,
                     xgrammar::GetBitmaskDLType(),
                     &shape,
                     nullptr,
                     0};
  try {
    if (!state.matcher.FillNextTokenBitmask(&tensor)) {
      std::fill(state.words.begin(), state.words.end(), kAll);
    }
  } catch (const std::exception& error) {
    return Failed(error.what());
  }
  const bool may_end =
      std::any_of(state.ends.begin(), state.ends.end(),
                  [&](const int32_t token) { return state.Has(token); });
  std::vector<uint32_t> with_ends = state.words;
  for (const int32_t token : state.ends) state.Clear(token);
  const bool may_go_on =
      std::any_of(state.words.begin(), state.words.end(),
                  [](const uint32_t word) { return word != 0; });
  state.ended = may_end && !may_go_on;
  if (!may_end && !may_go_on) {
    return Failed("no token leads to one");
  }
  if (state.may_end || !may_go_on) state.words = std::move(with_ends);
  state.filled = true;
  return absl::OkStatus();
}

absl::Status OutputMatcher::Mask(absl::Span<float> logits) {
  RETURN_IF_ERROR(Fill());
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  // An embedding may have more rows than there are tokens.
  const size_t tokens = std::min(
      logits.size(),
      static_cast<size_t>(
          state_->grammar->compiled.GetTokenizerInfo().GetVocabSize()));
  std::fill(logits.begin() + tokens, logits.end(), kNever);
  logits = logits.first(tokens);
  for (size_t begin = 0; begin < logits.size(); begin += 32) {
    const uint32_t word = state_->words[begin / 32];
    if (word == kAll) continue;
    const size_t end = std::min(begin + 32, logits.size());
    if (word == 0) {
      std::fill(logits.begin() + begin, logits.begin() + end, kNever);
      continue;
    }
    for (size_t i = begin; i < end; ++i) {
      if ((word >> (i - begin) & 1) == 0) logits[i] = kNever;
    }
  }
  return absl::OkStatus();
}

absl::Status OutputMatcher::Accept(int32_t token) {
  state_->filled = false;
  try {
    if (state_->matcher.AcceptToken(token)) return absl::OkStatus();
  } catch (const std::exception& error) {
    return Failed(error.what());
  }
  return Failed("a token was chosen that it has not");
}

absl::StatusOr<bool> OutputMatcher::AtEnd() {
  RETURN_IF_ERROR(Fill());
  return state_->ended;
}

}  // namespace onegrid::grammar
