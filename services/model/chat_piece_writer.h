// The pieces of a conversation, as chat formats write them one by one.
#ifndef SERVICES_MODEL_CHAT_PIECE_WRITER_H_
#define SERVICES_MODEL_CHAT_PIECE_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace onegrid::model {

struct ChatPiece {
  enum class Kind {
    kBos,      // The begin-of-sequence token; `text` is "<bos>".
    kControl,  // The token of that name, a control or a user-defined one.
    kText,     // Text in which names of control tokens mean nothing.
  };
  Kind kind = Kind::kText;
  std::string text;
  // Index of the assistant turn that the model writes this piece of, its text
  // or its end token; -1 for all else.
  int64_t answer_turn = -1;
};

// Makes pieces. Text that follows text is one piece with it, since the ids of
// two texts are not those of the whole; text of the model's is apart from what
// is not the model's. Thread-compatible.
class ChatPieceWriter {
 public:
  // Starts with <bos>. cuts_marks: said text is cut within the names of Gemma
  // 4's marks, which files may type as user-defined; the tokenizer finds those
  // in any text.
  explicit ChatPieceWriter(bool cuts_marks);

  void Control(absl::string_view name, int64_t answer_turn = -1);
  // Words of the format.
  void Fixed(absl::string_view text, int64_t answer_turn = -1);
  // What somebody said, whatever it spells.
  void Said(absl::string_view text, int64_t answer_turn = -1);

  std::vector<ChatPiece> Take();

 private:
  const bool cuts_marks_;
  std::vector<ChatPiece> pieces_;
  bool joins_ = false;  // the next text belongs to the last piece
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CHAT_PIECE_WRITER_H_
