import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.replication.PGReplicationStream;

/**
 * What applications do with the JDBC driver, each as a test of its own.
 *
 * <p>Arguments: host, port, user (and database), password, and for TLS an sslmode and the file of a
 * root certificate. Prints `ok name`, `ok name -> outcome` or `not ok name: why`.
 */
public final class Conformance {
    interface Test {
        void run() throws Exception;
    }

    private static final int SECONDS_MAX = 30;
    private static String host;
    private static String port;
    private static String user;
    private static String password;
    /// As sslmode and sslrootcert; none where there is no TLS.
    private static String mode;
    private static String rootCertificate;
    /// What the running test came to, where that is a matter of what it runs on.
    private static volatile String outcome;

    private static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.put("user", user);
        properties.put("password", password);
        if (mode != null) {
            properties.put("sslmode", mode);
            properties.put("sslrootcert", rootCertificate);
        }
        for (int i = 0; i < options.length; i += 2) {
            properties.put(options[i], options[i + 1]);
        }
        return DriverManager.getConnection(
            "jdbc:postgresql://" + host + ":" + port + "/" + user, properties);
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    private static void same(Object expected, Object found) {
        check(expected.equals(found), "expected " + expected + ", found " + found);
    }

    private static String state(Test test) throws Exception {
        try {
            test.run();
        } catch (SQLException exception) {
            return exception.getSQLState();
        }
        return "no error";
    }

    private static String ask(Connection connection, String query) throws SQLException {
        try (Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery(query)) {
            check(rows.next(), "no row: " + query);
            return rows.getString(1);
        }
    }

    private static void execute(Connection connection, String text) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(text);
        }
    }

    private static void modes(Map<String, Test> tests) {
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared",
            "extendedCacheEverything"}) {
            tests.put("query mode " + mode, () -> {
                try (Connection c = connect("preferQueryMode", mode);
                    PreparedStatement s = c.prepareStatement("SELECT ? + 1, ?")) {
                    for (int i = 0; i < 20; i++) {
                        s.setInt(1, i);
                        s.setString(2, "é" + i);
                        try (ResultSet rows = s.executeQuery()) {
                            check(rows.next(), "no row");
                            same(i + 1, rows.getInt(1));
                            same("é" + i, rows.getString(2));
                        }
                    }
                }
            });
        }
        for (String mode : new String[] {"disable", "allow", "prefer", "require"}) {
            tests.put("sslmode " + mode, () -> {
                String ended = state(() -> connect("sslmode", mode).close());
                // Which of the states for a refused connection is the driver's affair.
                outcome = ended.startsWith("08") ? "08004" : ended.replace("no error", "let in");
            });
        }
        for (String mode : new String[] {"disable", "allow", "prefer"}) {
            tests.put("gssEncMode " + mode, () -> connect("gssEncMode", mode).close());
        }
        for (String binary : new String[] {"true", "false"}) {
            tests.put("types, binaryTransfer " + binary, () -> types(binary));
        }
    }

    private static void types(String binary) throws Exception {
        OffsetDateTime time = OffsetDateTime.of(2026, 2, 3, 4, 5, 6, 0, ZoneOffset.UTC);
        UUID uuid = UUID.fromString("12345678-1234-1234-1234-123456789abc");
        try (Connection c = connect("binaryTransfer", binary, "prepareThreshold", "-1");
            PreparedStatement s = c.prepareStatement("SELECT ?, ?, ?, ?, ?, ?, ?::int[]")) {
            s.setLong(1, Long.MIN_VALUE);
            s.setDouble(2, 0.1);
            s.setBigDecimal(3, new BigDecimal("12345678901234567890.0987654321"));
            s.setObject(4, time);
            s.setObject(5, uuid);
            s.setBytes(6, new byte[] {0, -1, 127});
            s.setArray(7, c.createArrayOf("int4", new Integer[] {1, null, 3}));
            for (int i = 0; i < 3; i++) {
                try (ResultSet rows = s.executeQuery()) {
                    check(rows.next(), "no row");
                    same(Long.MIN_VALUE, rows.getLong(1));
                    same(0.1, rows.getDouble(2));
                    same(new BigDecimal("12345678901234567890.0987654321"), rows.getBigDecimal(3));
                    same(time, rows.getObject(4, OffsetDateTime.class));
                    same(uuid, rows.getObject(5));
                    check(Arrays.equals(new byte[] {0, -1, 127}, rows.getBytes(6)), "bytes");
                    same("[1, null, 3]", Arrays.toString((Object[]) rows.getArray(7).getArray()));
                }
            }
        }
    }

    private static void statements(Map<String, Test> tests) {
        tests.put("batch of 10 000", () -> {
            try (Connection c = connect("reWriteBatchedInserts", "false")) {
                execute(c, "CREATE TEMP TABLE batch (id int, text text)");
                try (PreparedStatement s = c.prepareStatement("INSERT INTO batch VALUES (?, ?)")) {
                    for (int i = 0; i < 10_000; i++) {
                        s.setInt(1, i);
                        s.setString(2, "line " + i);
                        s.addBatch();
                    }
                    same(10_000, Arrays.stream(s.executeBatch()).sum());
                }
                same("10000", ask(c, "SELECT count(*) FROM batch"));
            }
        });
        tests.put("cursor with fetch size", () -> {
            try (Connection c = connect()) {
                c.setAutoCommit(false);
                try (Statement s = c.createStatement()) {
                    s.setFetchSize(100);
                    long sum = 0;
                    try (ResultSet rows = s.executeQuery("SELECT generate_series(1, 100000)")) {
                        while (rows.next()) {
                            sum += rows.getInt(1);
                        }
                    }
                    same(5_000_050_000L, sum);
                }
            }
        });
        tests.put("result of 64 MB", () -> {
            try (Connection c = connect()) {
                same(64 << 20, ask(c, "SELECT repeat('x', 64 << 20)").length());
            }
        });
        tests.put("parameter of 64 MB", () -> {
            try (Connection c = connect();
                PreparedStatement s = c.prepareStatement("SELECT md5(?)")) {
                byte[] text = new byte[64 << 20];
                Arrays.fill(text, (byte) 'y');
                s.setString(1, new String(text, "US-ASCII"));
                try (ResultSet rows = s.executeQuery()) {
                    check(rows.next(), "no row");
                    same(ask(c, "SELECT md5(repeat('y', 64 << 20))"), rows.getString(1));
                }
            }
        });
        tests.put("generated keys", () -> {
            try (Connection c = connect()) {
                execute(c, "CREATE TEMP TABLE keys (id serial PRIMARY KEY, v text)");
                try (PreparedStatement s = c.prepareStatement("INSERT INTO keys (v) VALUES (?)",
                    Statement.RETURN_GENERATED_KEYS)) {
                    s.setString(1, "a");
                    same(1, s.executeUpdate());
                    try (ResultSet keys = s.getGeneratedKeys()) {
                        check(keys.next(), "no key");
                        same(1, keys.getInt(1));
                    }
                }
            }
        });
        tests.put("metadata", () -> {
            try (Connection c = connect();
                ResultSet tables = c.getMetaData().getTables(null, "pg_catalog", "pg_class", null)) {
                check(tables.next(), "no pg_class");
                same("PostgreSQL", c.getMetaData().getDatabaseProductName());
                check(c.isValid(5), "not valid");
            }
        });
    }

    private static void transactions(Map<String, Test> tests) {
        tests.put("savepoint and rollback", () -> {
            try (Connection c = connect()) {
                c.setAutoCommit(false);
                execute(c, "CREATE TEMP TABLE t (id int PRIMARY KEY)");
                execute(c, "INSERT INTO t VALUES (1)");
                Savepoint savepoint = c.setSavepoint();
                same("23505", state(() -> execute(c, "INSERT INTO t VALUES (1)")));
                same("25P02", state(() -> execute(c, "SELECT 1")));
                c.rollback(savepoint);
                same("1", ask(c, "SELECT count(*) FROM t"));
                c.commit();
            }
        });
        tests.put("serialization failure", () -> {
            try (Connection a = connect(); Connection b = connect()) {
                execute(a, "DROP TABLE IF EXISTS serial; CREATE TABLE serial (v int)");
                execute(a, "INSERT INTO serial VALUES (0)");
                for (Connection c : new Connection[] {a, b}) {
                    c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
                    c.setAutoCommit(false);
                    ask(c, "SELECT v FROM serial");
                }
                execute(a, "UPDATE serial SET v = 1");
                a.commit();
                same("40001", state(() -> execute(b, "UPDATE serial SET v = 2")));
                b.rollback();
            }
        });
        tests.put("16 threads, 100 transactions each", () -> {
            try (Connection c = connect()) {
                execute(c, "DROP TABLE IF EXISTS counter; CREATE TABLE counter (v int)");
                execute(c, "INSERT INTO counter VALUES (0)");
                ExecutorService threads = Executors.newFixedThreadPool(16);
                Future<?>[] all = new Future<?>[16];
                for (int i = 0; i < all.length; i++) {
                    all[i] = threads.submit(() -> {
                        try (Connection own = connect()) {
                            for (int k = 0; k < 100; k++) {
                                execute(own, "UPDATE counter SET v = v + 1");
                            }
                        }
                        return null;
                    });
                }
                for (Future<?> one : all) {
                    one.get(SECONDS_MAX, TimeUnit.SECONDS);
                }
                threads.shutdown();
                same("1600", ask(c, "SELECT v FROM counter"));
            }
        });
    }

    private static void ends(Map<String, Test> tests) {
        tests.put("cancel from another thread", () -> {
            try (Connection c = connect(); Statement s = c.createStatement()) {
                CountDownLatch begun = new CountDownLatch(1);
                Thread canceller = new Thread(() -> {
                    try {
                        begun.await();
                        Thread.sleep(500);
                        s.cancel();
                    } catch (Exception exception) {
                        throw new IllegalStateException(exception);
                    }
                });
                canceller.start();
                begun.countDown();
                same("57014", state(() -> s.execute("SELECT pg_sleep(20)")));
                canceller.join();
                same("1", ask(c, "SELECT 1"));
            }
        });
        tests.put("query timeout", () -> {
            try (Connection c = connect(); Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                same("57014", state(() -> s.execute("SELECT pg_sleep(20)")));
                same("1", ask(c, "SELECT 1"));
            }
        });
        tests.put("abort", () -> {
            Connection c = connect();
            c.abort(Runnable::run);
            check(c.isClosed(), "still open");
        });
        tests.put("terminated backend", () -> {
            try (Connection c = connect(); Connection other = connect()) {
                String pid = ask(c, "SELECT pg_backend_pid()");
                same("t", ask(other, "SELECT pg_terminate_backend(" + pid + ")"));
                // The server's last words, or that it is gone: the kernel may drop words that
                // arrived before what was written too late.
                String ended = state(() -> ask(c, "SELECT 1"));
                check(ended.equals("57P01") || ended.startsWith("08"), "ended with " + ended);
                check(c.isClosed() || !c.isValid(5), "still valid");
            }
        });
        tests.put("wrong password", () -> same("28P01",
            state(() -> connect("password", "wrong").close())));
    }

    private static void copies(Map<String, Test> tests) {
        tests.put("COPY in and out", () -> {
            try (Connection c = connect()) {
                execute(c, "CREATE TEMP TABLE copied (id int, text text)");
                StringBuilder lines = new StringBuilder();
                for (int i = 0; i < 200_000; i++) {
                    lines.append(i).append("\tline ").append(i).append('\n');
                }
                CopyManager copies = c.unwrap(PGConnection.class).getCopyAPI();
                same(200_000L, copies.copyIn("COPY copied FROM STDIN",
                    new StringReader(lines.toString())));
                StringWriter out = new StringWriter();
                same(200_000L, copies.copyOut("COPY copied TO STDOUT", out));
                same(lines.toString(), out.toString());
            }
        });
        tests.put("COPY that fails", () -> {
            try (Connection c = connect()) {
                execute(c, "CREATE TEMP TABLE copied (id int)");
                CopyManager copies = c.unwrap(PGConnection.class).getCopyAPI();
                same("22P02", state(() -> copies.copyIn("COPY copied FROM STDIN",
                    new StringReader("no number\n"))));
                same("1", ask(c, "SELECT 1"));
            }
        });
        tests.put("large object", () -> {
            try (Connection c = connect()) {
                c.setAutoCommit(false);
                LargeObjectManager objects = c.unwrap(PGConnection.class).getLargeObjectAPI();
                long id = objects.createLO();
                byte[] written = new byte[1 << 20];
                Arrays.fill(written, (byte) 7);
                try (LargeObject object = objects.open(id, LargeObjectManager.WRITE)) {
                    object.write(written);
                }
                try (LargeObject object = objects.open(id, LargeObjectManager.READ)) {
                    check(Arrays.equals(written, object.read(1 << 20)), "other bytes");
                }
                objects.delete(id);
                c.commit();
            }
        });
        tests.put("LISTEN and NOTIFY", () -> {
            try (Connection c = connect(); Connection other = connect()) {
                execute(c, "LISTEN news");
                execute(other, "NOTIFY news, 'paper'");
                PGNotification[] got =
                    c.unwrap(PGConnection.class).getNotifications(SECONDS_MAX * 1000);
                check(got != null && got.length == 1, "no notification");
                same("paper", got[0].getParameter());
            }
        });
        tests.put("physical replication stream", () -> {
            try (Connection plain = connect();
                Connection c = connect("replication", "true", "preferQueryMode", "simple",
                    "assumeMinServerVersion", "9.4")) {
                PGConnection connection = c.unwrap(PGConnection.class);
                String position = ask(plain, "SELECT pg_current_wal_lsn()");
                PGReplicationStream stream = connection.getReplicationAPI().replicationStream()
                    .physical()
                    .withStartPosition(org.postgresql.replication.LogSequenceNumber.valueOf(position))
                    .start();
                check(!stream.isClosed(), "closed");
                stream.close();
            }
        });
    }

    public static void main(String[] arguments) throws Exception {
        host = arguments[0];
        port = arguments[1];
        user = arguments[2];
        password = arguments[3];
        if (arguments.length > 4) {
            mode = arguments[4];
            rootCertificate = arguments[5];
        }
        Map<String, Test> tests = new LinkedHashMap<>();
        modes(tests);
        statements(tests);
        transactions(tests);
        ends(tests);
        copies(tests);
        ExecutorService runner = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        for (Map.Entry<String, Test> test : tests.entrySet()) {
            outcome = null;
            Future<?> running = runner.submit(() -> {
                test.getValue().run();
                return null;
            });
            try {
                running.get(SECONDS_MAX, TimeUnit.SECONDS);
                String came = outcome == null ? "" : " -> " + outcome;
                System.out.println("ok " + test.getKey() + came);
            } catch (Exception exception) {
                Throwable cause = exception.getCause() == null ? exception : exception.getCause();
                String why = String.valueOf(cause).replace('\n', ' ');
                System.out.println("not ok " + test.getKey() + ": " + why);
            }
        }
        System.exit(0);
    }
}
