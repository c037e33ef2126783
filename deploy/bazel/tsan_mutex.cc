// Tells ThreadSanitizer what absl::Mutex orders: Debian's Abseil is not built
// with it, so each use of a mutex would look like a race. Takes the place of
// the library's functions, which it calls, in programs built with the
// sanitizer.
#include <dlfcn.h>

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}

namespace {

// Abseil evaluates conditions of other threads under the mutex, before and
// after what is said here of it.
class Unseen {
 public:
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};

template <typename Result, typename... Args>
Result Call(const char* symbol, Args... args) {
  const Unseen unseen;
  using Function = Result (*)(Args...);
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, symbol))(args...);
}

}  // namespace

#define TSAN_ACQUIRES(symbol)            \
  extern "C" void symbol(void* object) { \
    Call<void, void*>(#symbol, object);  \
    __tsan_acquire(object);              \
  }
#define TSAN_RELEASES(symbol)            \
  extern "C" void symbol(void* object) { \
    __tsan_release(object);              \
    Call<void, void*>(#symbol, object);  \
  }
// Gives the mutex up and takes it again.
#define TSAN_WAITS(symbol)                               \
  extern "C" void symbol(void* object, void* argument) { \
    __tsan_release(object);                              \
    Call<void, void*, void*>(#symbol, object, argument); \
    __tsan_acquire(object);                              \
  }

// absl::Mutex
TSAN_ACQUIRES(_ZN4absl7debian35Mutex4LockEv)
TSAN_RELEASES(_ZN4absl7debian35Mutex6UnlockEv)
TSAN_ACQUIRES(_ZN4absl7debian35Mutex10ReaderLockEv)
TSAN_RELEASES(_ZN4absl7debian35Mutex12ReaderUnlockEv)
TSAN_WAITS(_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE)
// absl::Notification
TSAN_RELEASES(_ZN4absl7debian312Notification6NotifyEv)
TSAN_ACQUIRES(_ZNK4absl7debian312Notification19WaitForNotificationEv)

// absl::Mutex::AwaitWithTimeout, whose duration is two registers.
extern "C" bool
_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    void* mutex, void* condition, long high, unsigned low) {
  __tsan_release(mutex);
  const bool holds = Call<bool, void*, void*, long, unsigned>(
      "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_"
      "8DurationE",
      mutex, condition, high, low);
  __tsan_acquire(mutex);
  return holds;
}
