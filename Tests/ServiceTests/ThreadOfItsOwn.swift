import Foundation

/// Runs what does nothing but wait for other processes on a thread of its own: those that all tests share are as many as
/// there are cores, and one that waits is one that runs no test.
func onThreadOfItsOwn<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread { continuation.resume(with: Result { try body() }) }.start()
    }
}
