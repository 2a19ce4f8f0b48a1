package clients;

import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.JwtSource;
import io.spiffe.workloadapi.JwtSourceOptions;
import io.spiffe.workloadapi.WorkloadApiClient;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The JWT profile: tokens are validated by the library and by the agent. */
final class JwtProfile {
    // Between two looks whether tokens are signed with another key.
    private static final long LOOK_EVERY_MILLIS = 200;

    private static final Pattern KID = Pattern.compile("\"kid\"\\s*:\\s*\"([^\"]*)\"");

    private final WorkloadApiClient client;
    private final JwtSource source;

    private JwtProfile(WorkloadApiClient client, JwtSource source) {
        this.client = client;
        this.source = source;
    }

    /**
     * Fetches tokens for one audience, for the other and for both, has each validated here and by the agent, and then
     * follows a rotation of the key.
     */
    static void run(Map<String, String> options) throws Exception {
        String socket = options.get("--socket");
        var clientOptions = DefaultWorkloadApiClient.ClientOptions.builder().spiffeSocketPath(socket).build();
        var sourceOptions = JwtSourceOptions.builder().spiffeSocketPath(socket).build();
        try (var client = DefaultWorkloadApiClient.newClient(clientOptions);
                var source = DefaultJwtSource.newSource(sourceOptions)) {
            new JwtProfile(client, source).follow(options.get("--audience"), options.get("--other"));
        }
    }

    private void follow(String audience, String other) throws Exception {
        String token = validated(audience);
        validated(other);
        validated(audience, other);
        refused("refused here", () -> JwtSvid.parseAndValidate(token, source, Set.of(other)));
        refused("refused by the agent", () -> client.validateJwtSvid(token, other));
        Client.emit("waiting");
        while (keyOf(client.fetchJwtSvid(audience).getToken()).equals(keyOf(token))) {
            Thread.sleep(LOOK_EVERY_MILLIS);
        }
        validated(audience);
    }

    /** Fetches a token for these audiences and has it validated for each of them. */
    private String validated(String... audiences) throws Exception {
        String[] more = Arrays.copyOfRange(audiences, 1, audiences.length);
        JwtSvid svid = client.fetchJwtSvid(audiences[0], more);
        String token = svid.getToken();
        for (String audience : audiences) {
            JwtSvid here = JwtSvid.parseAndValidate(token, source, Set.of(audience));
            JwtSvid there = client.validateJwtSvid(token, audience);
            if (!here.getSpiffeId().equals(svid.getSpiffeId()) || !there.getSpiffeId().equals(svid.getSpiffeId())) {
                throw new IllegalStateException(svid.getSpiffeId() + " became another");
            }
        }
        List<String> named = svid.getAudience().stream().sorted().toList();
        Client.emit("token", "spiffe_id", svid.getSpiffeId().toString(), "audience", named, "kid", keyOf(token));
        return token;
    }

    private interface Call {
        void run() throws Exception;
    }

    private static void refused(String event, Call call) {
        try {
            call.run();
        } catch (Exception refused) {
            Client.emit(event, "detail", refused.toString());
        }
    }

    private static String keyOf(String token) {
        String header = new String(Base64.getUrlDecoder().decode(token.split("\\.")[0]), StandardCharsets.UTF_8);
        Matcher kid = KID.matcher(header);
        return kid.find() ? kid.group(1) : "";
    }
}
