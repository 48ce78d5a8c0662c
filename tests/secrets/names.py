"""Names that say that their value is a secret, as APIs spell them, and names that do not."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PASSWORDS = words(
    """
    password passwd pwd pass passphrase Password PASSWORD passWord user_password userPassword newPassword
    new_password old-password currentPassword password_confirmation confirmPassword login_password j_password
    db_password dbPassword DB_PASSWORD adminPass passcode passwort Passwort kennwort neuesPasswort motDePasse
    mot_de_passe motdepasse contraseña contrasena contraseña_nueva clave_secreta senha novaSenha palavra_passe пароль
    новый_пароль 密码 密碼 パスワード 비밀번호 hasło haslo şifre sifre parola wachtwoord lösenord losenord adgangskode
    passord salasana heslo jelszó pswd db_pw password_new password_digest password_field
    كلمة_المرور סיסמה mật_khẩu
    """
)

TOKENS = words(
    """
    token accessToken access_token access-token AccessToken ACCESS_TOKEN refreshToken refresh_token refresh-token
    id_token idToken authToken auth_token authenticityToken authenticity_token csrf_token csrfToken xsrf_token
    sessionToken session_token bearerToken apiToken api_token securityToken SecurityToken deviceToken jwt oauth_token
    oauth_token_secret code_verifier oauth_verifier _csrf SessionToken X-Amz-Security-Token
    """
)

KEYS = words(
    """
    secret client_secret clientSecret client-secret ClientSecret app_secret appSecret api_secret apiSecret secretKey
    secret_key SecretAccessKey aws_secret_access_key AWS_SECRET_ACCESS_KEY consumer_secret sharedSecret shared_secret
    webhook_secret apiKey apikey api_key api-key API_KEY APIKey x-api-key X-API-Key privateKey private_key
    private-key encryptionKey encryption_key signing_key accessKey access_key AccountKey SharedAccessKey
    subscription-key secret_id SecretString SecretBinary secret_key_base device_code unseal_key recovery_key private_keys
    private_key_pem seed_phrase mnemonic credentials credential authorization Authorization
    """
)

# what is a credential for one person or one payment
PERSONAL = words(
    """
    sessionId session_id sessionid sid JSESSIONID PHPSESSID otp otp_code one_time_code oneTimePassword totp mfa_code
    mfaCode verification_code pin pin_code pinCode cvv cvc cvv2 cvc2 security_code securityCode card_number
    cardNumber creditCard credit_card ssn social_security_number socialSecurityNumber iban
    """
)

FIELDS = (*PASSWORDS, *TOKENS, *KEYS, *PERSONAL)

HEADERS = words(
    """
    Authorization Proxy-Authorization X-Authorization X-Forwarded-Authorization X-Original-Authorization X-Api-Key
    Api-Key ApiKey X-ApiKey X-Api-Token X-Auth-Token X-Access-Token Access-Token X-Auth-Key X-Auth X-Token Auth-Token
    X-Session-Token X-Session-Id X-CSRF-Token X-XSRF-Token X-Amz-Security-Token X-Vault-Token X-Consul-Token
    PRIVATE-TOKEN JOB-TOKEN X-Gitlab-Token X-Goog-Api-Key X-Goog-Iam-Authorization-Token Ocp-Apim-Subscription-Key
    X-Functions-Key X-Shopify-Access-Token X-Figma-Token X-Client-Secret Client-Secret X-Secret X-Secret-Key
    X-Api-Secret X-Password X-Auth-Password X-Refresh-Token X-Id-Token X-Jwt-Assertion X-Amz-Cognito-Token DD-API-KEY
    DD-APPLICATION-KEY Circle-Token X-Parse-Session-Token X-Parse-Rest-Api-Key X-Rapidapi-Key
    X-MBX-APIKEY CF-Access-Client-Secret X-Storage-Token X-Subject-Token X-Otp X-OTP-Code X-Github-Token
    X-Webhook-Secret
    """
)

# of fields that ordinary data have; some look like the others
ORDINARY = words(
    """
    id name title description status state type kind path author passenger compass bypass passed passport_country
    passive keyboard keyword keywords monkey turkey primary_keyboard country_code zip_code postal_code error_code
    product_code language currency amount total price quantity unit items page per_page limit offset next_page_number
    total_count created_at updated_at email phone first_name last_name address city secretary secretariat
    tokenized_count max_tokens prompt_tokens completion_tokens total_tokens pinned pinboard spin opinion shipping
    sessions_count pwa side inside resident president signature_required signed_at authored_by authority
    oauth_provider cardinality discard cardboard pan_european japan expand basis assigned design topic captain
    """
)
