package clients;

import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.JSONObjectUtils;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.text.ParseException;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * Nimbus as a verifier of JWT-SVIDs that knows nothing but the issuer; ../README.md has the contract.
 *
 * <p>The test authority is trusted by the trust store that the JVM is started with. Start at main.
 */
public final class Oidc {
    private static final Duration TIMEOUT = Duration.ofSeconds(10);

    private Oidc() {}

    public static void main(String[] words) {
        Map<String, String> flags = new HashMap<>();
        for (int at = 1; at + 1 < words.length; at += 2) {
            flags.put(words[at], words[at + 1]);
        }
        try {
            verify(flags.get("--issuer"), flags.get("--audience"), Path.of(flags.get("--tokens")));
        } catch (Exception error) {
            emit(Map.of("event", "error", "detail", String.valueOf(error)));
            System.exit(1);
        }
    }

    private static void verify(String issuer, String audience, Path tokens) throws Exception {
        Map<String, Object> metadata = discover(issuer);
        JWKSource<SecurityContext> keys =
                JWKSourceBuilder.create(URI.create((String) metadata.get("jwks_uri")).toURL()).build();
        Set<JWSAlgorithm> algorithms =
                JSONObjectUtils.getStringList(metadata, "id_token_signing_alg_values_supported").stream()
                        .map(JWSAlgorithm::parse)
                        .collect(Collectors.toSet());
        var claims =
                new DefaultJWTClaimsVerifier<SecurityContext>(
                        audience,
                        new JWTClaimsSet.Builder().issuer(issuer).build(),
                        Set.of("exp", "iat", "iss", "sub", "aud"));
        // The default forgives a minute, which a test of expiry does not have.
        claims.setMaxClockSkew(0);
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(algorithms, keys));
        processor.setJWTClaimsSetVerifier(claims);
        for (var token : JSONObjectUtils.parse(Files.readString(tokens)).entrySet()) {
            Map<String, Object> verdict = new LinkedHashMap<>(Map.of("event", "verdict", "name", token.getKey()));
            try {
                verdict.put("accepted", processor.process((String) token.getValue(), null).getSubject());
            } catch (BadJOSEException | JOSEException | ParseException error) {
                verdict.put("refused", String.valueOf(error));
            }
            emit(verdict);
        }
    }

    private static Map<String, Object> discover(String issuer) throws Exception {
        HttpClient client = HttpClient.newBuilder().connectTimeout(TIMEOUT).build();
        URI address = URI.create(issuer + "/.well-known/openid-configuration");
        HttpRequest request = HttpRequest.newBuilder(address).timeout(TIMEOUT).build();
        HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IllegalStateException("the discovery document has status " + answer.statusCode());
        }
        Map<String, Object> metadata = JSONObjectUtils.parse(answer.body());
        if (!issuer.equals(metadata.get("issuer"))) {
            throw new IllegalStateException("the document's issuer is " + metadata.get("issuer"));
        }
        return metadata;
    }

    private static void emit(Map<String, Object> event) {
        System.out.println(JSONObjectUtils.toJSONString(event));
        System.out.flush();
    }
}
