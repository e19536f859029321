import Glibc

/// Writes events of one service to a backend. A value: copies with more fields are cheap.
public struct Logger: Sendable {
    /// The least level that is written.
    public var minimumLevel: LogLevel
    /// Name of the service.
    public let service: String
    private let backend: any LogBackend
    private let clock: @Sendable () -> Int64
    private var fields: [LogField] = []

    /// A logger; `clock` gives milliseconds since 1970.
    public init(
        service: String, minimumLevel: LogLevel = .info, backend: any LogBackend = StandardErrorLog(),
        clock: @escaping @Sendable () -> Int64 = Logger.wallClock
    ) {
        self.service = service
        self.minimumLevel = minimumLevel
        self.backend = backend
        self.clock = clock
    }

    /// The system's time, milliseconds since 1970.
    public static let wallClock: @Sendable () -> Int64 = {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }

    /// A logger that adds these fields to every event.
    public func adding(_ more: KeyValuePairs<String, LogValue>) -> Logger {
        var copy = self
        copy.fields += more.map { LogField($0.key, $0.value) }
        return copy
    }

    /// Logs an event; the message is not made if the level is not written.
    public func log(
        _ level: LogLevel, _ message: @autoclosure () -> String, _ more: KeyValuePairs<String, LogValue> = [:]
    ) {
        guard level >= minimumLevel else { return }
        backend.write(
            LogRecord(
                time: clock(), level: level, service: service, message: message(),
                fields: fields + more.map { LogField($0.key, $0.value) }))
    }

    /// Logs for whoever looks for a fault.
    public func debug(_ message: @autoclosure () -> String, _ fields: KeyValuePairs<String, LogValue> = [:]) {
        log(.debug, message(), fields)
    }

    /// Logs what happens in normal service.
    public func info(_ message: @autoclosure () -> String, _ fields: KeyValuePairs<String, LogValue> = [:]) {
        log(.info, message(), fields)
    }

    /// Logs what was refused, retried or slow.
    public func warning(_ message: @autoclosure () -> String, _ fields: KeyValuePairs<String, LogValue> = [:]) {
        log(.warning, message(), fields)
    }

    /// Logs what failed.
    public func error(_ message: @autoclosure () -> String, _ fields: KeyValuePairs<String, LogValue> = [:]) {
        log(.error, message(), fields)
    }
}
