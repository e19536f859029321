import Glibc

/// The line of the `Date` header (RFC 9110, 6.6.1), written once a second. Confined to its loop.
package struct HTTPDate {
    private static let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    private var second: time_t?
    private var text = ""

    /// Nothing is written yet.
    package init() {}

    /// The header with its end of line, at `now` in seconds since 1970.
    package mutating func line(at now: time_t) -> String {
        guard now != second else { return text }
        second = now
        text = "Date: \(Self.format(now))\r\n"
        return text
    }

    /// Such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    private static func format(_ time: time_t) -> String {
        var (time, parts) = (time, tm())
        gmtime_r(&time, &parts)
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec].map { padded(Int($0)) }.joined(separator: ":")
        let (day, month) = (days[Int(parts.tm_wday) % 7], months[Int(parts.tm_mon) % 12])
        return "\(day), \(padded(Int(parts.tm_mday))) \(month) \(1900 + Int(parts.tm_year)) \(clock) GMT"
    }

    private static func padded(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
}
