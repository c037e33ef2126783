// The limit of bytes of all keys and values, and what is left of it.
#ifndef SERVICES_INFERENCE_KV_ROOM_H_
#define SERVICES_INFERENCE_KV_ROOM_H_

#include <cstdint>
#include <vector>

#include "services/inference/engine.h"

namespace onegrid::inference {

// Rooms are taken for the tokens of one step before it runs, in pages, so that
// the step never holds more than the limit. Kept prefixes make room first; what
// else there is to give up is the caller's to decide.
// Thread-compatible.
class KvRoom {
 public:
  // limit: 0 is that of DefaultLimit. `engine` must outlive this object.
  KvRoom(Engine& engine, int64_t limit);

  // Full sequences in all slots and all prefixes that are kept.
  static int64_t DefaultLimit(const Engine& engine);
  int64_t limit() const { return limit_; }

  // Whether a sequence that grows to `tokens` fits if it is alone, and the most
  // tokens of one that does.
  bool FitsAlone(int64_t tokens) const;
  int64_t most_tokens() const;

  // Forgets what was taken.
  void BeginStep();
  // Takes room for as many of the `count` tokens after those of the slot's
  // sequence as there is, and returns how many. May be called again for more.
  int Take(int slot, int count);

  // A sequence in a slot, or in kNoSlot still, and tokens it will grow to.
  static constexpr int kNoSlot = -1;
  struct Growth {
    int slot;
    int64_t tokens;
  };
  // Whether there is room for all of it, prefixes that no sequence uses and the
  // sequences of the slots `freed` given up; what those share with others is
  // counted as if it were not. Takes nothing.
  bool Fits(const std::vector<Growth>& growths,
            const std::vector<int>& freed = {}) const;
  // Whether there is room for a block now, with nothing given up.
  bool HasBlock() const;

 private:
  bool TakeBytes(int64_t bytes);

  Engine& engine_;
  const int64_t limit_;
  int64_t taken_bytes_ = 0;
  std::vector<int64_t> covered_;  // [slots] tokens that have room
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_KV_ROOM_H_
