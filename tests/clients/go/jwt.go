package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// Between two looks whether tokens are signed with another key.
const lookEvery = 200 * time.Millisecond

// jwt fetches tokens for one audience, for the other and for both, has each validated here and by the agent, and then
// follows a rotation of the key.
func jwt(ctx context.Context, o options) error {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(o.socket))
	if err != nil {
		return err
	}
	defer client.Close()
	source, err := workloadapi.NewJWTSource(ctx, workloadapi.WithClient(client))
	if err != nil {
		return err
	}
	defer source.Close()

	first, err := validated(ctx, client, source, o.audience)
	if err != nil {
		return err
	}
	for _, audience := range [][]string{{o.other}, {o.audience, o.other}} {
		if _, err := validated(ctx, client, source, audience...); err != nil {
			return err
		}
	}
	token := first.Marshal()
	if _, err := jwtsvid.ParseAndValidate(token, source, []string{o.other}); err != nil {
		emit(map[string]any{"event": "refused here", "detail": err.Error()})
	}
	if _, err := client.ValidateJWTSVID(ctx, token, o.other); err != nil {
		emit(map[string]any{"event": "refused by the agent", "detail": err.Error()})
	}
	emit(map[string]any{"event": "waiting"})
	for {
		next, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: o.audience})
		if err != nil {
			return err
		}
		if keyOf(next.Marshal()) != keyOf(token) {
			_, err := validated(ctx, client, source, o.audience)
			return err
		}
		time.Sleep(lookEvery)
	}
}

// validated fetches a token for these audiences and has it validated for each of them.
func validated(
	ctx context.Context, client *workloadapi.Client, source *workloadapi.JWTSource, audience ...string,
) (*jwtsvid.SVID, error) {
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience[0], ExtraAudiences: audience[1:]})
	if err != nil {
		return nil, err
	}
	token := svid.Marshal()
	for _, one := range audience {
		here, err := jwtsvid.ParseAndValidate(token, source, []string{one})
		if err != nil {
			return nil, err
		}
		there, err := client.ValidateJWTSVID(ctx, token, one)
		if err != nil {
			return nil, err
		}
		if here.ID != svid.ID || there.ID != svid.ID {
			return nil, fmt.Errorf("%s became %s here and %s at the agent", svid.ID, here.ID, there.ID)
		}
	}
	if svid.Expiry.Before(time.Now()) {
		return nil, errors.New("the token has expired")
	}
	sort.Strings(svid.Audience)
	emit(map[string]any{
		"event": "token", "spiffe_id": svid.ID.String(), "audience": svid.Audience, "kid": keyOf(token),
	})
	return svid, nil
}

// keyOf reads the key ID out of a token's header.
func keyOf(token string) string {
	var header struct {
		Kid string `json:"kid"`
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.SplitN(token, ".", 2)[0])
	if err != nil || json.Unmarshal(raw, &header) != nil {
		return ""
	}
	return header.Kid
}
