//! Texts where nothing can be paid (any more).

use super::Text;

/// The title of a cart that was paid.
pub(in super::super) const ALREADY_PAID: Text = Text {
    en: "Already paid",
    de: "Bereits bezahlt",
    fr: "Déjà payé",
    es: "Ya está pagado",
    it: "Già pagato",
    nl: "Al betaald",
    pt: "Já está pago",
    pl: "Już opłacono",
    ja: "お支払い済みです",
    zh: "已付款",
    ar: "تم الدفع بالفعل",
};

/// The text of a cart that was paid.
pub(in super::super) const PAID: Text = Text {
    en: "Thank you! Your payment has been received.",
    de: "Dieser Warenkorb ist bezahlt. Vielen Dank!",
    fr: "Ce panier a été payé. Merci !",
    es: "Este carrito ya se ha pagado. ¡Gracias!",
    it: "Questo carrello è stato pagato. Grazie!",
    nl: "Deze winkelwagen is betaald. Bedankt!",
    pt: "Este carrinho já foi pago. Obrigado!",
    pl: "Ten koszyk został opłacony. Dziękujemy!",
    ja: "このカートのお支払いは完了しています。ありがとうございました。",
    zh: "此购物车已付款。谢谢！",
    ar: "تم دفع قيمة سلة التسوق هذه. شكرًا لك!",
};

/// The title of a cart or link that has expired, and of a deleted cart.
pub(in super::super) const NOTHING_TO_PAY: Text = Text {
    en: "Nothing to pay here",
    de: "Hier ist nichts zu bezahlen",
    fr: "Il n’y a rien à payer ici",
    es: "Aquí no hay nada que pagar",
    it: "Qui non c’è nulla da pagare",
    nl: "Hier is niets te betalen",
    pt: "Não há nada a pagar aqui",
    pl: "Tutaj nie ma nic do zapłacenia",
    ja: "こちらではお支払いいただけません",
    zh: "此处没有需要支付的款项",
    ar: "لا يوجد شيء للدفع هنا",
};

/// The cart has expired.
pub(in super::super) const CART_EXPIRED: Text = Text {
    en: "This cart has expired.",
    de: "Dieser Warenkorb ist abgelaufen.",
    fr: "Ce panier a expiré.",
    es: "Este carrito ha caducado.",
    it: "Questo carrello è scaduto.",
    nl: "Deze winkelwagen is verlopen.",
    pt: "Este carrinho expirou.",
    pl: "Ten koszyk wygasł.",
    ja: "このカートの有効期限が切れました。",
    zh: "此购物车已过期。",
    ar: "انتهت صلاحية سلة التسوق هذه.",
};

/// The cart was deleted.
pub(in super::super) const CART_DELETED: Text = Text {
    en: "This cart no longer exists.",
    de: "Diesen Warenkorb gibt es nicht mehr.",
    fr: "Ce panier n’existe plus.",
    es: "Este carrito ya no existe.",
    it: "Questo carrello non esiste più.",
    nl: "Deze winkelwagen bestaat niet meer.",
    pt: "Este carrinho já não existe.",
    pl: "Ten koszyk już nie istnieje.",
    ja: "このカートはもう存在しません。",
    zh: "此购物车已不存在。",
    ar: "سلة التسوق هذه لم تعد موجودة.",
};

/// The link has expired.
pub(in super::super) const LINK_EXPIRED: Text = Text {
    en: "This link has expired.",
    de: "Dieser Link ist abgelaufen.",
    fr: "Ce lien a expiré.",
    es: "Este enlace ha caducado.",
    it: "Questo link è scaduto.",
    nl: "Deze link is verlopen.",
    pt: "Este link expirou.",
    pl: "Ten link wygasł.",
    ja: "このリンクの有効期限が切れました。",
    zh: "此链接已过期。",
    ar: "انتهت صلاحية هذا الرابط.",
};

/// The title while a payment is in progress.
pub(in super::super) const IN_PROGRESS: Text = Text {
    en: "Your payment is being processed",
    de: "Ihre Zahlung wird bearbeitet",
    fr: "Votre paiement est en cours de traitement",
    es: "Su pago se está procesando",
    it: "Il pagamento è in elaborazione",
    nl: "Uw betaling wordt verwerkt",
    pt: "O seu pagamento está em processamento",
    pl: "Twoja płatność jest przetwarzana",
    ja: "お支払いを処理しています",
    zh: "正在处理您的付款",
    ar: "جارٍ معالجة دفعتك",
};

/// The text while a payment is in progress.
pub(in super::super) const NOTHING_TO_DO: Text = Text {
    en: "You don't need to do anything. Bank payments can take a few days.",
    de: "Sie müssen nichts weiter tun. Bankzahlungen können einige Tage dauern.",
    fr: "Vous n’avez rien à faire. Les paiements bancaires peuvent prendre quelques jours.",
    es: "No tiene que hacer nada más. Los pagos bancarios pueden tardar unos días.",
    it: "Non è necessario fare altro. I pagamenti bancari possono richiedere alcuni giorni.",
    nl: "U hoeft niets te doen. Bankbetalingen kunnen enkele dagen duren.",
    pt: "Não é necessário fazer mais nada. Os pagamentos bancários podem demorar alguns dias.",
    pl: "Nie musisz nic robić. Płatności bankowe mogą potrwać kilka dni.",
    ja: "お客様の操作は必要ありません。銀行でのお支払いは数日かかることがあります。",
    zh: "您无需进行任何操作。银行付款可能需要几天时间。",
    ar: "لا يلزمك القيام بأي شيء. قد تستغرق المدفوعات المصرفية بضعة أيام.",
};

/// The title after paying.
pub(in super::super) const THANKS: Text = Text {
    en: "Thank you!",
    de: "Vielen Dank!",
    fr: "Merci !",
    es: "¡Gracias!",
    it: "Grazie!",
    nl: "Bedankt!",
    pt: "Obrigado!",
    pl: "Dziękujemy!",
    ja: "ありがとうございました",
    zh: "谢谢！",
    ar: "شكرًا لك!",
};

/// The text after paying. The money may still be on its way.
pub(in super::super) const SENT: Text = Text {
    en: "Your payment was sent. You can close this page.",
    de: "Ihre Zahlung wurde übermittelt. Sie können diese Seite schließen.",
    fr: "Votre paiement a été transmis. Vous pouvez fermer cette page.",
    es: "Su pago se ha enviado. Puede cerrar esta página.",
    it: "Il pagamento è stato inviato. È possibile chiudere questa pagina.",
    nl: "Uw betaling is verzonden. U kunt deze pagina sluiten.",
    pt: "O seu pagamento foi enviado. Pode fechar esta página.",
    pl: "Twoja płatność została wysłana. Możesz zamknąć tę stronę.",
    ja: "お支払い手続きが完了しました。このページは閉じていただけます。",
    zh: "您的付款已提交。您可以关闭此页面。",
    ar: "تم إرسال دفعتك. يمكنك إغلاق هذه الصفحة.",
};
