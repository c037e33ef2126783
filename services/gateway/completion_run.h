// One request for generation as it is answered: calls of the backend in, JSON
// or server-sent events out.
#ifndef SERVICES_GATEWAY_COMPLETION_RUN_H_
#define SERVICES_GATEWAY_COMPLETION_RUN_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/gateway/backend.h"
#include "services/gateway/chat_answer.h"
#include "services/gateway/chat_prompt.h"
#include "services/gateway/confidence.h"
#include "services/gateway/openai_request.h"
#include "services/gateway/openai_response.h"
#include "services/gateway/prompt_echo.h"
#include "services/gateway/token_texts.h"

namespace onegrid::gateway {

// Start, then either Whole or NextPart until it returns false; from one thread
// at a time. All answers are generated at once, each by a call of its own with
// the seed of the request plus its number, and are read in order; a stream has
// them one after the other. The backend must outlive this.
class CompletionRun {
 public:
  struct Options {
    std::string id;
    int64_t created_seconds = 0;
    // Used if the request has none.
    uint64_t seed = 0;
    absl::Time deadline;
    // Ask for the log-probabilities of all tokens, so that confidence() is
    // known; the answer has them only if the request wants them.
    bool measure = false;
    // Either ends the run: with Cancelled, and with Unavailable
    // (SERVER_DRAINING).
    AbandonedFn client_gone;
    AbandonedFn stopping;
    // Called for each message with tokens of the first answer, as it comes: the
    // others have come by the time they are read.
    std::function<void()> on_tokens;
    // Called for each answer's end.
    std::function<void(const v1::Finished&)> on_finished;
  };

  CompletionRun(CompletionRequest request, Backend& backend, Options options);

  // Tokenizes, begins all calls, and waits until the first has left the
  // backend's queue, so that its refusal can still become the HTTP status.
  absl::Status Start();

  // The JSON of all answers.
  absl::StatusOr<std::string> Whole();

  // The next event of the stream. An error in the middle is an event, too, and
  // the last one then: no "[DONE]" follows.
  bool NextPart(std::string* part);

  // The error that ended the run; OK until then.
  const absl::Status& status() const { return status_; }
  // So far.
  const Usage& usage() const { return usage_; }
  // Of the tokens so far, with Options::measure or the request's logprobs.
  const Confidence& confidence() const { return confidence_; }

 private:
  absl::Status BeginCalls();
  // With echo: what answers to each prompt begin with.
  absl::Status EchoPrompts();
  size_t ChoiceCount() const;
  // Choice current_, with its prompt if that is repeated.
  Choice NewChoice();
  // Ends a choice and goes on to the next one.
  void GoOn();
  AbandonedFn Abandoned() const;
  // The next message of call `current_`, counted. False: it ended without its
  // last message, and status_ says why.
  bool Read(v1::GenerateResponse* response);
  // Adds a message's text and tokens to `choice`.
  void Take(const v1::Delta& delta, Choice* choice);
  void TakeTokens(const v1::Delta& delta, Choice* choice);
  // Adds what the last message leaves, and the reason.
  void End(const v1::Finished& finished, Choice* choice);
  void AddPart(AnswerPart part, Choice* choice);
  std::string Event(const Choice& choice, bool opens) const;
  bool NextOfChoice(std::string* part);

  const CompletionRequest request_;
  Backend& backend_;
  const Options options_;
  ResponseHead head_;
  ChatTokens chat_;  // of a chat
  Usage usage_;
  Confidence confidence_;
  absl::Status status_;
  std::shared_ptr<const TokenTexts> texts_;  // with logprobs or echo
  std::vector<PromptEcho> echoes_;           // one a prompt
  // One a choice; none if only prompts are repeated.
  std::vector<std::unique_ptr<GenerateCall>> calls_;
  size_t current_ = 0;
  // Of choice current_.
  std::optional<ChatAnswer> answer_;   // of a chat
  std::optional<TokenPlaces> places_;  // with logprobs
  int calls_said_ = 0;
  // Of the stream.
  bool opened_ = false;  // what choice current_ begins with was sent
  bool usage_sent_ = false;
  bool ended_ = false;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_COMPLETION_RUN_H_
