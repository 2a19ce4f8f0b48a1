package clients;

import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.X509Context;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketTimeoutException;
import java.nio.charset.StandardCharsets;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSession;
import javax.net.ssl.SSLSocket;

/**
 * The java-spiffe client of the interoperability suite; ../README.md has the contract of all clients.
 *
 * <p>TLS is left wholly to the SSLContext of java-spiffe-provider. Start at main.
 */
public final class Client {
    // Long enough for a first SVID while the machine is busy; a peer that hangs is an error.
    private static final Duration START_TIMEOUT = Duration.ofSeconds(30);
    private static final int PEER_TIMEOUT_MILLIS = 10_000;

    private static final int EXIT_FAILED = 1;
    private static final int EXIT_USAGE = 2;
    private static final int EXIT_REFUSED = 3;

    private static final int SAN_TYPE_URI = 6;

    /** One of the two sides would not talk to the other. */
    private static final class Refused extends Exception {
        Refused(Exception cause) {
            super(cause);
        }
    }

    private Client() {}

    public static void main(String[] words) {
        int status = 0;
        try {
            if (words.length % 2 == 0) {
                throw new IllegalArgumentException("usage: Client fetch|serve|dial|jwt --socket unix:///PATH ...");
            }
            Map<String, String> options = new HashMap<>(Map.of("--rotations", "0", "--port", "0"));
            for (int i = 1; i < words.length; i += 2) {
                options.put(words[i], words[i + 1]);
            }
            switch (words[0]) {
                case "fetch" -> fetch(options);
                case "serve" -> serve(options);
                case "dial" -> dial(options);
                case "jwt" -> JwtProfile.run(options);
                default -> throw new IllegalArgumentException("unknown command " + words[0]);
            }
        } catch (IllegalArgumentException wrong) {
            System.err.println(wrong.getMessage());
            status = EXIT_USAGE;
        } catch (Refused refused) {
            emit("refused", "detail", refused.getMessage());
            status = EXIT_REFUSED;
        } catch (Exception error) {
            emit("error", "detail", error.toString());
            status = EXIT_FAILED;
        }
        System.out.flush();
        // Not left to the last thread: the library has some of its own.
        System.exit(status);
    }

    private static void fetch(Map<String, String> options) throws Exception {
        int wanted = Integer.parseInt(options.get("--rotations")) + 1;
        Set<String> serials = new HashSet<>();
        CompletableFuture<Void> done = new CompletableFuture<>();
        var clientOptions =
                DefaultWorkloadApiClient.ClientOptions.builder().spiffeSocketPath(options.get("--socket")).build();
        try (var client = DefaultWorkloadApiClient.newClient(clientOptions)) {
            client.watchX509Context(new Watcher<>() {
                @Override
                public void onUpdate(X509Context update) {
                    try {
                        serials.add(report(update));
                        if (serials.size() >= wanted) {
                            done.complete(null);
                        }
                    } catch (Exception invalid) {
                        done.completeExceptionally(invalid);
                    }
                }

                @Override
                public void onError(Throwable ended) {
                    done.completeExceptionally(ended);
                }
            });
            done.get();
        }
    }

    /** Verifies the default SVID with the library's own validator, prints it and returns its serial number. */
    private static String report(X509Context update) throws Exception {
        X509Svid svid = update.getDefaultSvid();
        X509SvidValidator.verifyChain(svid.getChain(), update.getX509BundleSet());
        X509SvidValidator.verifySpiffeId(svid.getLeaf(), () -> Set.of(svid.getSpiffeId()));
        X509Certificate leaf = svid.getLeaf();
        String serial = leaf.getSerialNumber().toString(16);
        long notAfter = leaf.getNotAfter().toInstant().getEpochSecond();
        emit("svid", "spiffe_id", svid.getSpiffeId().toString(), "serial", serial, "not_after", notAfter);
        return serial;
    }

    private static DefaultX509Source source(Map<String, String> options) throws Exception {
        return DefaultX509Source.newSource(DefaultX509Source.X509SourceOptions.builder()
                .spiffeSocketPath(options.get("--socket"))
                .initTimeout(START_TIMEOUT)
                .build());
    }

    private static SSLContext tls(DefaultX509Source source, SpiffeId peer) throws Exception {
        return SpiffeSslContextFactory.getSslContext(SslContextOptions.builder()
                .sslProtocol("TLSv1.3") // the library's default is 1.2, which not every peer here speaks
                .x509Source(source)
                .acceptedSpiffeIdsSupplier(() -> Set.of(peer))
                .build());
    }

    private static void serve(Map<String, String> options) throws Exception {
        SpiffeId peer = SpiffeId.parse(options.get("--peer"));
        int port = Integer.parseInt(options.get("--port"));
        try (DefaultX509Source source = source(options);
                SSLServerSocket listener = (SSLServerSocket) tls(source, peer)
                        .getServerSocketFactory()
                        .createServerSocket(port, 5, InetAddress.getLoopbackAddress())) {
            listener.setNeedClientAuth(true);
            emit("listening", "port", (long) listener.getLocalPort());
            while (true) {
                try (SSLSocket connection = (SSLSocket) listener.accept()) {
                    connection.setSoTimeout(PEER_TIMEOUT_MILLIS);
                    connection.getOutputStream().write(readLine(connection));
                    emit("served", "peer", peerOf(connection.getSession()));
                } catch (IOException error) {
                    emit("refused", "detail", error.toString());
                }
            }
        }
    }

    private static void dial(Map<String, String> options) throws Exception {
        SpiffeId peer = SpiffeId.parse(options.get("--peer"));
        int port = Integer.parseInt(options.get("--port"));
        byte[] sent = "hello from java\n".getBytes(StandardCharsets.UTF_8);
        try (DefaultX509Source source = source(options);
                SSLSocket connection = (SSLSocket) tls(source, peer).getSocketFactory().createSocket()) {
            connection.connect(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), PEER_TIMEOUT_MILLIS);
            connection.setSoTimeout(PEER_TIMEOUT_MILLIS);
            byte[] line = call(connection, sent);
            if (!java.util.Arrays.equals(line, sent)) {
                throw new IllegalStateException("another line came back: " + new String(line, StandardCharsets.UTF_8));
            }
            emit("echo", "peer", peerOf(connection.getSession()));
        }
    }

    private static byte[] call(SSLSocket connection, byte[] sent) throws IOException, Refused {
        try {
            connection.startHandshake();
            // In TLS 1.3 a server's refusal reaches the client only when it uses the connection.
            connection.getOutputStream().write(sent);
            return readLine(connection);
        } catch (SocketTimeoutException late) {
            throw late;
        } catch (IOException refused) {
            throw new Refused(refused);
        }
    }

    private static byte[] readLine(SSLSocket connection) throws IOException {
        var reader = new BufferedReader(new InputStreamReader(connection.getInputStream(), StandardCharsets.UTF_8));
        String line = reader.readLine();
        if (line == null) {
            throw new SSLException("the peer closed the connection");
        }
        return (line + "\n").getBytes(StandardCharsets.UTF_8);
    }

    private static String peerOf(SSLSession session) throws IOException {
        try {
            X509Certificate leaf = (X509Certificate) session.getPeerCertificates()[0];
            Collection<List<?>> names = leaf.getSubjectAlternativeNames();
            return names.stream()
                    .filter(name -> name.get(0).equals(SAN_TYPE_URI))
                    .map(name -> (String) name.get(1))
                    .findFirst()
                    .orElseThrow();
        } catch (java.security.cert.CertificateException unreadable) {
            throw new SSLException(unreadable);
        }
    }

    /** Prints one JSON line; values are strings, lists of them, or whole numbers. */
    static synchronized void emit(String event, Object... namesAndValues) {
        StringBuilder json = new StringBuilder("{\"event\":").append(quoted(event));
        for (int i = 0; i < namesAndValues.length; i += 2) {
            Object value = namesAndValues[i + 1];
            json.append(',').append(quoted((String) namesAndValues[i])).append(':');
            json.append(printed(value));
        }
        System.out.println(json.append('}'));
        System.out.flush();
    }

    private static String printed(Object value) {
        if (value instanceof List<?> all) {
            return all.stream().map(Client::printed).collect(Collectors.joining(",", "[", "]"));
        }
        return value instanceof Long ? value.toString() : quoted(String.valueOf(value));
    }

    private static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ') {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"').toString();
    }
}
