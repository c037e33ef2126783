// What an output has to be, held to token by token.
#ifndef SERVICES_INFERENCE_GRAMMAR_OUTPUT_GRAMMAR_H_
#define SERVICES_INFERENCE_GRAMMAR_OUTPUT_GRAMMAR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/model/tokenizer.h"

namespace onegrid::grammar {

// Most texts of Structure.choices, and bytes of all together.
inline constexpr int kMaxChoices = 1024;
inline constexpr size_t kMaxChoiceBytes = size_t{64} << 10;

// A grammar compiled for a model's tokens. Immutable; requests share it.
class OutputGrammar;

// The grammar, with the rule "root", of the texts that a structure allows.
// InvalidArgument (STRUCTURE_NOT_SUPPORTED): nothing is set, or errors of
// SchemaGrammar and RegexExpression. Thread-safe.
absl::StatusOr<std::string> GrammarOf(const v1::Structure& structure);

// Compiles the structures of requests to one model, and keeps what it compiled
// within a bound of memory. The tables of the vocabulary are made by the first
// request that needs them; a server without such requests pays nothing.
// Thread-safe; one structure is compiled at a time.
class OutputGrammars {
 public:
  // `tokenizer` must outlive this and all it returns.
  explicit OutputGrammars(const model::Tokenizer& tokenizer);
  ~OutputGrammars();

  // Errors of GrammarOf; InvalidArgument (STRUCTURE_NOT_SUPPORTED) for what the
  // library cannot compile, too.
  absl::StatusOr<std::shared_ptr<const OutputGrammar>> Compile(
      const v1::Structure& structure);

 private:
  struct Compiler;

  const model::Tokenizer& tokenizer_;
  absl::Mutex mu_;
  std::unique_ptr<Compiler> compiler_ ABSL_GUARDED_BY(mu_);
};

// Follows one output. Thread-compatible.
class OutputMatcher {
 public:
  // `may_end`: tokens that end the output may be chosen where it is complete;
  // false leaves them out as long as anything else may follow.
  OutputMatcher(std::shared_ptr<const OutputGrammar> grammar, bool may_end);
  ~OutputMatcher();

  // Sets the logits of all tokens that may not be next to minus infinity.
  // Internal: no token may, which the library should not let happen.
  absl::Status Mask(absl::Span<float> logits);

  // The token that was chosen of those, not one that ends the output.
  absl::Status Accept(int32_t token);

  // Whether the output is complete and nothing but its end may follow.
  absl::StatusOr<bool> AtEnd();

 private:
  // Finds the tokens that may be next, unless that was done.
  absl::Status Fill();

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_OUTPUT_GRAMMAR_H_
